//go:build linux

package faults_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

// elsewhere are tests of rows that need no network of their own, and stand beside
// the code. They measure for themselves, and judge.
var elsewhere = []struct {
	dir, test string             // dir from the repository's root
	result    faultresult.Result // only with its Row: the test records what it measures
}{
	{"shared", "TestAServerThatNeverSendsSettingsFailsAGetInTime", faultresult.Result{
		Row: 10, Client: "pool", Injected: "raw HTTP/2 peer", Promised: "error <= 3s",
	}},
	{"scale", "TestAServerThatNeverSendsSettingsFailsACallInTime", faultresult.Result{
		Row: 10, Client: "scale", Injected: "raw HTTP/2 peer", Promised: "error <= 3s",
	}},
	{"shared", "TestAServerThatLeavesAtOnceIsNotDialledInALoop", faultresult.Result{
		Row: 11, Client: "pool", Injected: "raw HTTP/2 peer", Promised: "dials in 3 s <= 5",
	}},
	{"integration", "TestTwoHundredCallersAreServedWithALimitOfEight", faultresult.Result{
		Row: 12, Client: "both", Injected: "etcd, nginx and haproxy with 8 streams", Promised: "all 200 served, connections <= ceil(200/8) or the maximum",
	}},
	{"shared", "TestALimitOfZeroIsATypedErrorAndHealsWhenRaised", faultresult.Result{
		Row: 13, Client: "pool", Injected: "raw HTTP/2 peer", Promised: "a typed error in time, no dial storm, recover <= 1s",
	}},
	{"scale", "TestAFullConnectionIsProbedOnTheStreamThatIsKeptFree", faultresult.Result{
		Row: 18, Client: "scale", Injected: "every stream taken, virtual time", Promised: "one stream reserved; 0 false kills",
	}},
	{"shared", "TestALeaseReturnedFromManyGoroutinesCountsOnce", faultresult.Result{
		Row: 19, Client: "pool", Injected: "a test", Promised: "counts exact",
	}},
	{"shared", "TestACallerThatLeavesDuringTheDialLeavesNoSocketBehind", faultresult.Result{
		Row: 20, Client: "pool", Injected: "a test", Promised: "no leaked socket; the next caller uses it",
	}},
	{".", "TestARefusedConnectionNamesItsReason", faultresult.Result{
		Row: 21, Client: "factory", Injected: "real TLS server", Promised: "an error that names the reason, on the first try",
	}},
	{"identity", "TestConnectionsAreOnANewCertificateWithinThirtySeconds", faultresult.Result{
		Row: 22, Client: "factory", Injected: "files swapped", Promised: "old identity drained <= 30s",
	}},
	{"integration", "TestARenewedCertificateIsShownToEtcdWithoutAFailedCall", faultresult.Result{
		Row: 22, Client: "pool", Injected: "files swapped, etcd", Promised: "0 failed",
	}},
	{"shared", "TestAHostileServerHarmsNoCallerForLong", faultresult.Result{
		Row: 23, Client: "pool", Injected: "raw HTTP/2 peer, every fault it knows", Promised: "evicted <= 2s, memory bounded",
	}},
	{"shared", "TestAnHourOfFaultsLeavesNothingBehind", faultresult.Result{
		Row: 24, Client: "pool", Injected: "one hour of random faults, virtual time", Promised: "0 leaked goroutines, leases",
	}},
	{"internal/fleet", "TestEveryClientComesBackAfterAnOutageAndNothingIsWasted", faultresult.Result{
		Row: 30, Client: "scale", Injected: "fleets of clients on one server, virtual time", Promised: "all come back in the time that the server needs, little of it wasted; figures in docs/fleet.md",
	}},
	{"internal/fleet", "TestAFleetComesBackFromBehindABalancerThatAccepts", faultresult.Result{
		Row: 31, Client: "scale", Injected: "a balancer that accepts and fails behind, virtual time", Promised: "all come back; figures in docs/fleet.md",
	}},
	{"identity", "TestASourceThatHangsCostsAnImpatientProgramOneDial", faultresult.Result{
		Row: 32, Client: "factory", Injected: "a certificate source that hangs", Promised: "bounded",
	}},
	{"identity", "TestAFileThatStallsHoldsOneGoroutineAndNoHandshake", faultresult.Result{
		Row: 32, Client: "factory", Injected: "a file that cannot be read", Promised: "bounded, the old identity goes on",
	}},
	{"identity", "TestARevocationListThatStallsDoesNotHoldTheIdentityUp", faultresult.Result{
		Row: 32, Client: "factory", Injected: "a revocation list that cannot be read", Promised: "bounded, the identity goes on",
	}},
	{"scale", "TestCredentialsThatCannotBeHadSayNothingOfTheServer", faultresult.Result{
		Row: 32, Client: "scale", Injected: "a token source that hangs or fails", Promised: "no verdict on connections",
	}},
	{"scale", "TestAnyStatusOfTheServerIsLife", faultresult.Result{
		Row: 33, Client: "scale", Injected: "every status from the health service", Promised: "gRPC statuses are life",
	}},
	{"scale", "TestARefusalOverHTTPIsToldAsAFailedDial", faultresult.Result{
		Row: 33, Client: "scale", Injected: "HTTP statuses from the health service", Promised: "HTTP is told as HTTP",
	}},
	{"integration/proxy", "TestNginxThatRoutesOneServiceOnlyIsToldAndPassed", faultresult.Result{
		Row: 33, Client: "proxy", Injected: "nginx that answers 404 for the health service", Promised: "HTTP is told as HTTP, calls pass",
	}},
	{"scale", "TestAnAddressThatHasBecomeMuchFartherIsReachedAgain", faultresult.Result{
		Row: 34, Client: "scale", Injected: "handshakes that once were fast and take seconds, virtual time", Promised: "connects",
	}},
	{"integration/proxy", "TestCallsToAPythonServerWithBusyWorkersAreAnsweredLate", faultresult.Result{Row: 35}},
	{"integration/proxy", "TestCallsToANodeServerWithABlockedEventLoopAreAnsweredLate", faultresult.Result{Row: 35}},
}

// They run here when somebody measures. Else their own packages run them, and it is
// enough that they are there.
func TestTheOtherRows(t *testing.T) {
	for _, other := range elsewhere {
		t.Run(other.test, func(t *testing.T) {
			dir := filepath.Join("..", "..", other.dir)
			if os.Getenv(faultresult.File) == "" {
				expectTest(t, dir, other.test)
				return
			}
			cmd := exec.Command("go", "test", "-count=1", "-v", "-run", "^"+other.test+"$", ".")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			result := other.result
			result.Held = err == nil && strings.Contains(string(out), "--- PASS: "+other.test)
			result.Note = other.test
			if !result.Held {
				t.Errorf("%v\n%s", err, out)
			}
			if result.Promised != "" {
				faultresult.Record(t, result)
			}
		})
	}
}

func expectTest(t *testing.T, dir, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return
		}
	}
	t.Errorf("no %s in %s", name, dir)
}
