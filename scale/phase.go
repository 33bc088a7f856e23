package scale

import "slices"

// phase is where a connection is in its life. gRPC's SHUTDOWN ends each of them: the
// connection is forgotten then.
//
// These are the moves between phases; the variable moves has the same ones. In addition,
// every phase ends in retired when the child shuts the subchannel down.
//
//	from       on                                            to         effects
//	idle       the child connects; growth; a successor       dialling   connect, when the budget has a place
//	idle       not needed after its backoff; the last other  retired    shut down
//	           connection was lost; other addresses; its
//	           silent predecessor has answered
//	dialling   READY                                         ready      tell READY, serve; a predecessor is retired or observed
//	dialling   READY of a successor, with probes on          trial      a goroutine asks it
//	dialling   the handshake is late (see handshakes.go)     dialling   tell TRANSIENT_FAILURE if every dial is late; later dial another
//	dialling   the dial fails                                backoff    tell TRANSIENT_FAILURE if no other dial is under way
//	dialling   GOAWAY before READY                           draining   dial another
//	dialling   given up, or another dial came to a result;   retired    shut down
//	           other addresses; lost before READY; its
//	           silent predecessor has answered
//	dialling   lost before READY, several in a row           held       tell CONNECTING, or TRANSIENT_FAILURE
//	backoff    the backoff is over                           idle       tell IDLE, unless READY
//	backoff    the backoff is over before the hold is        held       none: the child was told already
//	backoff    demand; RetryNow; other dials go on; the      retired    shut down, which ends the backoff
//	           last other connection was lost; other
//	           addresses
//	trial      it answered, or its predecessor was lost or   ready      serve; the predecessor is retired or observed
//	           ejected
//	trial      GOAWAY                                        draining   dial again later
//	trial      it did not answer; lost; other addresses;     retired    shut down; dial again later
//	           its silent predecessor has answered
//	ready      replaced by age, to learn whether it ends     observed   publish; the health watch moves
//	ready      GOAWAY, or ejected                            draining   dial another; if ejected, kill
//	ready      lost, replaced, not needed, other addresses   retired    publish, shut down; dial if calls wait
//	ready      lost, as the last of several in a row         held       tell IDLE, CONNECTING, perhaps TRANSIENT_FAILURE
//	observed   the server ended it, or it outlived the age   retired    shut down
//	draining   the transport reports its end                 retired    publish, shut down
//	draining   that, as the last of several in a row         held       as from ready
//	held       other addresses                               retired    shut down
//
// A held connection is shut down at the end of its hold and stays held until SHUTDOWN
// comes, see resumeOnGRPCLocked.
type phase int

const (
	phaseIdle     phase = iota // made, and not told to connect
	phaseDialling              // told to connect, or in line for a place in the budget
	phaseBackoff               // the dial failed; gRPC sits out the backoff
	phaseTrial                 // READY, and has to answer before it succeeds its predecessor
	phaseReady                 // in subchannel.ready
	phaseObserved              // replaced by age, and kept to see whether the server ends it: see ages.go
	phaseDraining              // out of use before gRPC knows: its streams may go on, and its transport will report IDLE
	phaseRetired               // gRPC was told to close it when its last stream has ended
	phaseHeld                  // lost soon after it was made; no other is dialled until its hold is over
)

func (p phase) String() string {
	return [...]string{"idle", "dialling", "backoff", "trial", "ready", "observed", "draining", "retired", "held"}[p]
}

// moves are the phases that may follow each one.
var moves = [...][]phase{
	phaseIdle:     {phaseDialling, phaseRetired},
	phaseDialling: {phaseBackoff, phaseTrial, phaseReady, phaseDraining, phaseRetired, phaseHeld},
	phaseBackoff:  {phaseIdle, phaseRetired, phaseHeld},
	phaseTrial:    {phaseReady, phaseDraining, phaseRetired},
	phaseReady:    {phaseObserved, phaseDraining, phaseRetired, phaseHeld},
	phaseObserved: {phaseRetired},
	phaseDraining: {phaseRetired, phaseHeld},
	phaseRetired:  {},
	phaseHeld:     {phaseRetired},
}

// moveHook is called for every move, with subchannel.mu held. Only this package's tests
// set it: there it panics on a move that the table does not have. In a program such a move
// would be a bug of this package; the connection moves, and the program goes on.
var moveHook func(c *connection, to phase, allowed bool)

// moveLocked moves c to another phase. Nothing else changes c.phase.
func (c *connection) moveLocked(to phase) {
	if moveHook != nil {
		moveHook(c, to, slices.Contains(moves[c.phase], to))
	}
	if c.phase == phaseDialling && (to != phaseRetired || c.inLine) { // if retired, its dial ends with its SHUTDOWN
		c.leavePlaceLocked()
	}
	c.phase = to
}
