package h2server

// Fault is a way in which a connection misbehaves from its start. Another fault,
// a limit of 0, needs no name: use WithLimit or SetLimit.
type Fault int

const (
	// NoFault is a connection that behaves.
	NoFault Fault = iota
	// Silent accepts, does the TLS handshake if there is one, and never sends
	// a byte of HTTP/2.
	Silent
	// CloseAtOnce sends SETTINGS, so that a client takes the connection for a
	// good one, and closes.
	CloseAtOnce
	// GoAwayAtOnce sends SETTINGS and a GOAWAY that takes no stream, and closes.
	GoAwayAtOnce
)

// String is the fault's name, for the names of tests.
func (f Fault) String() string {
	switch f {
	case NoFault:
		return "no fault"
	case Silent:
		return "never sends SETTINGS"
	case CloseAtOnce:
		return "closes after SETTINGS"
	case GoAwayAtOnce:
		return "GOAWAY at once"
	default:
		return "unknown fault"
	}
}
