package alike_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// allowance is a difference from a plain channel that is meant.
type allowance struct {
	states     []string
	behaviours []string // none: all of them
	kinds      []string // none: both

	as      string              // the state in which a plain channel does what ours does in these; "": the same
	instead func(*outcome)      // what else happens instead; nil: nothing
	reword  func(string) string // gives our text the words that it has in the place of gRPC's; nil: it has gRPC's
	reason  string

	needed map[[2]string]bool // the kinds and the states where it was
}

func (a *allowance) apply(plain, our *outcome) {
	if a.instead != nil {
		a.instead(plain)
	}
	if a.reword != nil {
		our.Text = a.reword(our.Text)
	}
}

func (a *allowance) note(k kind, st state) {
	if a.needed == nil {
		a.needed = make(map[[2]string]bool)
	}
	a.needed[[2]string{k.name, st.name}] = true
}

// checkAllowances finds the allowances that are not needed, now that every call was made.
func checkAllowances(t *testing.T) {
	t.Helper()
	for _, a := range allowances {
		for _, k := range ours {
			for _, name := range a.states {
				if fits(a.kinds, k.name) && !a.needed[[2]string{k.name, name}] {
					t.Errorf("on %s, %q, nothing differs any more for which there was a reason: %s", k.name, name, a.reason)
				}
			}
		}
	}
}

// allowances are all of them. Where several fit they come one after the other.
var allowances = []*allowance{
	{
		states: []string{"blackholed"},
		as:     "blackholed, with keepalive",
		reason: "A dead connection is found by probes, without grpc.WithKeepaliveParams. A plain channel" +
			" does the same with keepalive, a few seconds later; without it, it waits for the kernel.",
	},
	{
		states: []string{"blackholed", "blackholed, with keepalive"},
		instead: func(o *outcome) {
			if o.Text == "keepalive ping failed to receive ACK within timeout" {
				o.Text = "error reading from server: "
			}
		},
		reason: "The words are those of gRPC for a connection that was closed, with what was asked in vain.",
	},
	{
		states:     []string{"blackholed", "blackholed, with keepalive"},
		behaviours: []string{"credentials by dial option", "credentials by call option"},
		instead:    func(o *outcome) { o.Dials = 1 },
		reason:     "A successor is dialled when the connection is suspected, not with the next call.",
	},
	{
		states: []string{"blackholed at first", "blackholed", "blackholed, with keepalive"},
		reword: func(text string) string {
			return givenUp.ReplaceAllString(text, `connection error: desc = "transport: Error while dialing: context deadline exceeded"`)
		},
		reason: "It was not the dialler that gave the dial up.",
	},
	{
		states: []string{"mute at first"},
		instead: func(o *outcome) { // the rest is EOF or "closed pipe"
			o.Text, _, _ = strings.Cut(o.Text, "io: ")
			o.Text, _, _ = strings.Cut(o.Text, "EOF")
		},
		reword: func(text string) string {
			return handshaking.ReplaceAllString(text, `connection error: desc = "error reading server preface: `)
		},
		reason: "Callers are told after 2.5 s, and not after 20, that the server does not finish the handshake." +
			" It is still under way then, so that gRPC has no words for its failure.",
	},
	{
		states:     []string{"blackholed at first"},
		behaviours: alone(),
		instead:    func(o *outcome) { o.Dials = 2 },
		reason: "A dial that no packet answers is given up after 3 s and begun anew while calls wait, so that" +
			" the end of a short outage is not waited for until TCP asks again.",
	},
	{
		states:     []string{"limit 0"},
		behaviours: []string{"credentials that fail", "credentials that fail, by call option", "credentials that are Unavailable", "credentials that are Unavailable, retryPolicy"},
		instead:    (*outcome).endWithTheContext,
		reason: "A call waits for a stream of any connection, in Pick as gRFC A105 has it; credentials are asked" +
			" for when it has one, so they are fresh then. A plain channel asks first and waits then, in the transport.",
	},
	{
		states: []string{"limit 0 for a while"},
		behaviours: []string{
			"credentials that fail", "credentials that fail, by call option",
			"credentials that are Unavailable", "credentials that are Unavailable, retryPolicy",
		},
		instead: func(o *outcome) { o.Took = aWhile },
		reason:  "The same.",
	},
	{
		states:     []string{"replaced under way"},
		behaviours: []string{"credentials by dial option", "credentials by call option"},
		instead:    func(o *outcome) { o.Dials = 1 },
		reason:     "Make before break: the successor of a connection that is told to go is dialled at once.",
	},
	{
		states:     []string{"replaced by the pool under way"},
		behaviours: []string{"credentials by dial option", "credentials by call option"},
		kinds:      []string{poolName},
		instead:    func(o *outcome) { o.Dials = 1 },
		reason:     "It is the pool's own test that fails, and the other channel that is dialled for it.",
	},
	{
		states: []string{"closed"},
		kinds:  []string{poolName},
		as:     "closed, never connected",
		reason: "A pool has no channel any more, so its calls are made on another that is closed.",
	},
	{
		states:     []string{"closed", "closed, never connected"},
		behaviours: []string{"context that has ended"},
		instead:    func(o *outcome) { o.Text = "" },
		reason:     "There are two reasons, and grpc-go tells either.",
	},
}

// endWithTheContext makes it the outcome of a call that waited until its context ended.
func (o *outcome) endWithTheContext() {
	late := []codes.Code{codes.DeadlineExceeded}
	o.Code, o.Took, o.Text = late[0], untilDeadline, "context deadline exceeded"
	o.Begin, o.Seen, o.End, o.OnFinish = 1, late, late, late
}

// alone are the behaviours that count dials.
func alone() (names []string) {
	for _, b := range behaviours() {
		if b.leavesConnectionAlone {
			names = append(names, b.name)
		}
	}
	return names
}

// givenUp is the text of a dial that package scale gave up.
var givenUp = regexp.MustCompile(`scale: dialling localhost: no answer within [0-9.ms]+`)

// handshaking is what is said of a server that has not begun HTTP/2.
var handshaking = regexp.MustCompile(`scale: connecting to localhost accepted the connection and did not begin HTTP/2 .* behind its proxy`)

func fits(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }

// allowed are the allowances for a kind, a state and a behaviour.
func allowed(k kind, st state, b behaviour) (fit []*allowance) {
	for _, a := range allowances {
		if fits(a.states, st.name) && fits(a.behaviours, b.name) && fits(a.kinds, k.name) {
			fit = append(fit, a)
		}
	}
	return fit
}
