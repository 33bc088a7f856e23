//go:build linux

package faults_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/faults"
	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

func TestAScenarioRefusesTheNetworkOfTheMachine(t *testing.T) {
	needNamespaces(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestInside$")
	cmd.Env = append(os.Environ(), scriptFile+"=testdata/01-blackhole.txt", clientKind+"="+faults.ClientScale)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in the network namespace of the machine, which no fault may touch") {
		t.Errorf("it ended with %v and printed\n%s", err, out)
	}
}

func TestABrokenPromiseIsRecordedAndFailsTheTest(t *testing.T) {
	needNamespaces(t)
	t.Parallel()
	script := filepath.Join(t.TempDir(), "broken.txt")
	if err := os.WriteFile(script, []byte("row 5\ninjected nothing\nclient pool\nserver grpc\nconnect\nexpect failed = 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	recorded := filepath.Join(t.TempDir(), "results")
	out, err := faults.Inside(t.Context(), "TestInside", time.Minute,
		scriptFile+"="+script, clientKind+"="+faults.ClientPool, faultresult.File+"="+recorded)
	if err == nil || !strings.Contains(out, "broken.txt:6: expected failed = 5, got 0 failed") {
		t.Errorf("it ended with %v and printed\n%s", err, out)
	}
	f, err := os.Open(recorded)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	results, err := faultresult.Read(f)
	if err != nil || len(results) != 1 || results[0].Held || results[0].Row != 5 {
		t.Errorf("recorded was %+v (%v), want row 5, not held", results, err)
	}
}

func TestATestThatIsNotThereIsAnError(t *testing.T) {
	needNamespaces(t)
	t.Parallel()
	if out, err := faults.Inside(t.Context(), "TestNobodyWrote", time.Minute); err == nil || !strings.Contains(err.Error(), "TestNobodyWrote did not run") {
		t.Errorf("got %v and\n%s", err, out)
	}
}
