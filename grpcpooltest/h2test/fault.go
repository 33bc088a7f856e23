package h2test

// Fault is a way in which a connection misbehaves from its start. One fault is not
// among them, a limit of 0: use WithLimit or SetLimit.
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
	// HTTP1 answers what the client says first with 400 Bad Request in HTTP/1.1,
	// and closes.
	HTTP1
	// Garbage sends SETTINGS, and then a frame that breaks every rule.
	Garbage

	// NeverReads sends SETTINGS and never reads, with a small receive buffer
	// where the connection has one to set.
	NeverReads
	// ZeroWindow sets the window of streams to zero and never opens one: headers
	// pass, a request's body does not. Calls are answered at their end, so never.
	ZeroWindow

	// NeverAcknowledges answers calls, and neither SETTINGS nor PINGs.
	NeverAcknowledges

	// PingFlood sends PINGs without end, each to be answered.
	PingFlood
	// SettingsFlood sends SETTINGS without end, each to be acknowledged.
	SettingsFlood
	// WindowFlood sends WINDOW_UPDATEs for a stream that nobody has, without end.
	WindowFlood
	// ResetFlood sends RST_STREAM for a stream that nobody has, without end.
	ResetFlood
	// EmptyDataFlood sends DATA frames without data for stream 1, without end.
	EmptyDataFlood

	// ResetsCalls answers every call with RST_STREAM (INTERNAL_ERROR).
	ResetsCalls
	// HugeHeaders answers every call with more than 256 KiB of headers.
	HugeHeaders
	// ContinuationFlood answers every call with a header block without end.
	ContinuationFlood
	// EndlessData answers every call with a message that does not end, and ignores
	// the client's windows.
	EndlessData
	// PushPromise promises a stream with every call, which it then answers. A
	// gRPC client has no use for it (RFC 9113, section 8.4).
	PushPromise

	lastFault

	// AnswersHTTP answers every call with HTTP 400 and a page, as nginx answers a
	// client whose certificate it does not trust. Such a server is not hostile, so
	// Faults leaves it out.
	AnswersHTTP
)

// Faults are all that a hostile server may do.
func Faults() []Fault {
	all := make([]Fault, 0, lastFault)
	for f := NoFault + 1; f < lastFault; f++ {
		all = append(all, f)
	}
	return all
}

// NeedsSocket reports whether f needs a real socket: while a connection sends without
// end, the clock of testing/synctest stands still, and NeverReads needs the buffers
// of the kernel.
func (f Fault) NeedsSocket() bool {
	switch f {
	case NeverReads, PingFlood, SettingsFlood, WindowFlood, ResetFlood, EmptyDataFlood, HugeHeaders, ContinuationFlood, EndlessData:
		return true
	default:
		return false
	}
}

const unknownFault = "unknown fault"

// String is the fault's name, for the names of tests.
func (f Fault) String() string {
	names := [...]string{
		NoFault:           "no fault",
		Silent:            "never sends SETTINGS",
		CloseAtOnce:       "closes after SETTINGS",
		GoAwayAtOnce:      "GOAWAY at once",
		HTTP1:             "answers in HTTP/1.1",
		Garbage:           "garbage after SETTINGS",
		NeverReads:        "never reads",
		ZeroWindow:        "zero window",
		NeverAcknowledges: "never acknowledges",
		PingFlood:         "PING flood",
		SettingsFlood:     "SETTINGS flood",
		WindowFlood:       "WINDOW_UPDATE flood",
		ResetFlood:        "RST_STREAM flood",
		EmptyDataFlood:    "flood of empty DATA",
		ResetsCalls:       "resets calls",
		HugeHeaders:       "huge headers",
		ContinuationFlood: "CONTINUATION flood",
		EndlessData:       "DATA without end",
		PushPromise:       "PUSH_PROMISE",
		AnswersHTTP:       "answers in HTTP",
	}
	if f < 0 || int(f) >= len(names) {
		return unknownFault
	}
	return names[f]
}
