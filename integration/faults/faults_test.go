//go:build linux

package faults_test

import (
	"flag"
	"os"
	"path/filepath"
	"sync"
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
	seed   = flag.Uint64("seed", 0, "of the soak's faults; 0 means a random one")
)

// atOnce is how many scenarios are played at a time, unless -parallel says. They
// wait most of the time.
const atOnce = "6"

func TestMain(m *testing.M) {
	faults.ServeIfAsked()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
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

// Rows 1 to 9 and 14 to 17 of the fault matrix, for a channel and for a pool: see
// testdata, and README.md for how to add one.
func TestTheMatrix(t *testing.T) {
	needNamespaces(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var machine sync.RWMutex // held for writing by who wants it alone
	for _, file := range files {
		script := readScript(t, file)
		for _, client := range script.Clients {
			t.Run(script.File+"/"+client, func(t *testing.T) {
				t.Parallel()
				times := *repeat
				if script.Once {
					times = 1
				}
				for range times {
					var lock sync.Locker = machine.RLocker()
					if script.Alone {
						lock = &machine
					}
					lock.Lock()
					play(t, file, client)
					lock.Unlock()
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
