//go:build linux

package faults_test

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/davidwartell/go-grpcpool/integration/faults"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
)

var (
	repeat = flag.Int("repeat", 1, "how often each scenario is played")
	full   = flag.Bool("full", false, "wait as long as the scripts ask for when somebody measures")
	soak   = flag.Duration("soak", 20*time.Second, "how long the soak lasts")
	seed   = flag.Uint64("seed", 1, "of the soak's faults")
)

// atOnce is how many scenarios are played at a time, beside those that take long
// and little of the machine. Most of the time they wait; more than one for each of two
// cores would be in the way of each other's milliseconds.
const atOnce = 2

func TestMain(m *testing.M) {
	faults.ServeIfAsked()
	if err := flag.Set("test.parallel", "100"); err != nil { // atOnce counts instead
		panic(err)
	}
	// What toxiproxy's toxics have not passed on when a connection ends stays with
	// them for ever: a defect of toxiproxy.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"))
}

// needNamespaces ends the test where no scenario can be played.
func needNamespaces(t *testing.T) {
	t.Helper()
	reason := faults.Missing()
	if reason == "" {
		return
	}
	if os.Getenv(realserver.RequireAll) != "" {
		t.Fatalf("%s, and %s is set", reason, realserver.RequireAll)
	}
	t.Skip(reason)
}

func readScript(t *testing.T, file string) *faults.Script {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script, err := faults.Parse(file, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return script
}

// The environment of TestInside: which script, and which client.
const (
	scriptFile = "FAULTS_SCRIPT"
	clientKind = "FAULTS_CLIENT"
	inFull     = "FAULTS_FULL"
)

// Rows 1 to 9, 14 to 17, 25 to 29, 31 and 35 of the fault matrix, for a channel and for a pool: see
// testdata, and README.md for how to add one.
func TestTheMatrix(t *testing.T) {
	needNamespaces(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	slots := make(chan struct{}, atOnce)
	for _, file := range files {
		script := readScript(t, file)
		for _, client := range script.Clients {
			t.Run(script.File+"/"+client, func(t *testing.T) {
				if !script.Alone {
					t.Parallel() // goes on when all that want the machine alone are done
				}
				if reason := script.Missing(); reason != "" {
					t.Skip(reason) // what is missing cannot be installed, whatever CI demands
				}
				if script.Once {
					play(t, file, client)
					return
				}
				for range *repeat {
					slots <- struct{}{}
					play(t, file, client)
					<-slots
				}
			})
		}
	}
}

// play plays a script in a process of its own.
func play(t *testing.T, file, client string) {
	t.Helper()
	env := []string{scriptFile + "=" + file, clientKind + "=" + client}
	if *full {
		env = append(env, inFull+"=1")
	}
	out, err := faults.Inside(t.Context(), "TestInside", time.Hour, env...)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	t.Log(out)
}

// TestInside is what play starts.
func TestInside(t *testing.T) {
	file := os.Getenv(scriptFile)
	if file == "" {
		t.Skip("is started by TestTheMatrix, in a network namespace of its own")
	}
	faults.Run(t, readScript(t, file), os.Getenv(clientKind), os.Getenv(inFull) != "")
}

const (
	soakFor  = "FAULTS_SOAK"
	soakSeed = "FAULTS_SEED"
)

// Row 24 of the fault matrix in real time; make soak gives it ten minutes.
func TestASoakOfRandomFaultsLeavesNothingBehind(t *testing.T) {
	needNamespaces(t)
	t.Parallel()
	out, err := faults.Inside(t.Context(), "TestSoakInside", *soak+time.Hour,
		soakFor+"="+soak.String(), soakSeed+"="+strconv.FormatUint(*seed, 10))
	if err != nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	t.Log(out)
}

// TestSoakInside is what the test before it starts.
func TestSoakInside(t *testing.T) {
	if os.Getenv(soakFor) == "" {
		t.Skip("is started by the test of the soak, in a network namespace of its own")
	}
	d, err := time.ParseDuration(os.Getenv(soakFor))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(os.Getenv(soakSeed), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	faults.Soak(t, d, seed)
}
