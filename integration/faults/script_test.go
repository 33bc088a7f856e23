package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/davidwartell/go-grpcpool/integration/faults"
)

// header is the least that a script must declare. It has five lines.
const header = "row 1\ninjected somehow\nclient scale\nserver grpc\n# a remark\n"

func TestAScriptIsRead(t *testing.T) {
	script, err := faults.Parse("testdata/some.txt", `
# Remarks and blank lines are skipped.
row 3 16
injected  iptables DROP,   here and there
client pool plain scale
server grpc limit=8 age=2s servers=2 takes=20ms health=hangs
proxy
control
alone
once

hold 3
calls every 20ms timeout 1s
	wait 1s full 1m
fault toxic latency 200ms
expect detect <= 1.5s
heal
expect failed = 0
expect p99.9 <= 1.5x control
`)
	if err != nil {
		t.Fatal(err)
	}
	texts := make([]string, 0, len(script.Steps))
	for _, step := range script.Steps {
		texts = append(texts, step.Text)
	}
	if want := []string{
		"hold 3", "calls every 20ms timeout 1s", "wait 1s full 1m", "fault toxic latency 200ms",
		"expect detect <= 1.5s", "heal", "expect failed = 0", "expect p99.9 <= 1.5x control",
	}; !cmp.Equal(want, texts) {
		t.Error(cmp.Diff(want, texts))
	}
	if line := script.Steps[0].Line; line != 12 {
		t.Errorf("the first step is said to be in line %d, want 12", line)
	}
	script.Steps = nil
	want := &faults.Script{
		File: "some.txt", Rows: []int{3, 16}, Injected: "iptables DROP, here and there",
		Clients: []string{"pool", "scale"},
		Plain:   true,
		Server: faults.ServerSpec{
			Kind: "grpc", Limit: 8, Age: 2 * time.Second, Count: 2, Takes: 20 * time.Millisecond, Mute: true,
		},
		Proxy: true, Control: true, Alone: true, Once: true,
	}
	if diff := cmp.Diff(want, script); diff != "" {
		t.Error(diff)
	}
}

func TestAMistakeIsNamedWithItsLine(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "s.txt: no row of the fault matrix"},
		{"row 1", "s.txt: nothing says how"},
		{"row 1\ninjected x", "s.txt: no client"},
		{"row 1\ninjected x\nclient pool", "s.txt: no server"},
		{header, "s.txt: nothing is expected"},
		{"row", "s.txt:1: row: want one row or more"},
		{"row 36", `s.txt:1: row: "36" is not a row, want 1 to 35`},
		{"row one", `"one" is not a row`},
		{"row 1\nrow 2", "s.txt:2: row: is said twice"},
		{"row 1 1", "is said twice"},
		{"injected", "want a few words"},
		{"client", "s.txt: no row"},
		{"client grpc", `s.txt:1: client: "grpc" is not a client, want scale or pool`},
		{"client pool pool", "is said twice"},
		{"server", "want one of grpc, nginx, haproxy"},
		{"server apache", "want one of grpc, nginx, haproxy"},
		{"server grpc 8", `"8": want name=value`},
		{"server grpc limit=0", `"0": want a number from 1 to`},
		{"server grpc age=soon", `"soon": want a duration`},
		{"server grpc speed=1", "there are limit=, age=, servers=, takes= and health="},
		{"server nginx servers=2", "there is one nginx"},
		{"server haproxy age=2s", "the age of haproxy's connections cannot be set"},
		{"server grpc takes=long", `"long": want a duration`},
		{"server grpc health=good", "want health=hangs"},
		{"row 1\ninjected x\nclient plain\nserver grpc", "s.txt: no client"},
		{"client plain pool plain", "is said twice"},
		{"proxy toxiproxy", `"toxiproxy" is too much`},
		{"dance", "s.txt:1: dance: is not a word that begins a line; those are alone, "},
		{header + "connect\nclient pool", "s.txt:7: client: must stand before the first step"},
		{header + "calls", `want "every"`},
		{header + "calls every", `"every": want a value after it`},
		{header + "calls often 1s", `"often": want one of every, timeout`},
		{header + "calls every 0s", `every: "0s": want a duration`},
		{header + "call every 1s", `"every": want one of timeout`},
		{header + "callers", "want how many callers"},
		{header + "callers 0", `"0": want a number from 1`},
		{header + "await 5", "want plain among the clients"},
		{"client scale plain\nrow 1\ninjected x\nserver grpc\ncalls every 1s\nfault reject\nawait", "want how many calls"},
		{header + "restarts 3 for 1s", `"calls" before it`},
		{header + "calls every 1s\nrestarts", "want how many restarts"},
		{header + "calls every 1s\nrestarts 3", `want "for"`},
		{header + "calls every 1s\nrestarts 3 full 0 for 1s", `full: "0": want a number`},
		{header + "hold", "want how many streams"},
		{header + "hold 0", `"0": want a number from 1`},
		{header + "stream", `want "every"`},
		{header + "wait", "want how long"},
		{header + "wait 2h", "up to 1h0m0s"},
		{header + "wait 1s or 2s", `"or": want one of full`},
		{header + "heal", "s.txt:6: heal: there is no fault to heal"},
		{header + "fault", "want one of burn, close, drop, freeze, hang, kill"},
		{header + "fault flood", `"flood": want one of`},
		{header + "fault drop", "drop: want one of both, to-server, to-client, data-to-server, connections, or a server"},
		{header + "fault lose 5", `want how much, such as "5%"`},
		{header + "fault lose 100%", `"100": want a number from 1 to 99`},
		{header + "fault link up", `link: want "down" after it`},
		{header + "fault reject all", `"all" is too much`},
		{header + "fault kill client", `kill: want "server"`},
		{header + "fault kill server 2", "there is no server 2"},
		{header + "fault stop client", `want "for" and how long`},
		{header + "fault stop", `want "server"`},
		{header + "fault freeze client", `want "for" and how long`},
		{header + "fault freeze server for 1s", `want "client" after it`},
		{header + "fault burn", "want how many goroutines"},
		{header + "fault burn 5 for ever", `"ever": want a duration`},
		{header + "fault stop server for 1s\nheal", "there is no fault to heal"},
		{header + "fault throttle server 2", "there is no server 2"},
		{header + "fault drop server 2", "there is no server 2"},
		{"proxy\n" + header + "fault drop connections", "would be toxiproxy's as well"},
		{header + "fault toxic timeout", `say "proxy"`},
		{header + "fault reload", `only nginx is reloaded`},
		{"server nginx\nfault drop both", `drop acts on "server grpc" only`},
		{"proxy\n" + header + "fault toxic", "want one of timeout"},
		{"proxy\n" + header + "fault toxic slicer", `"slicer": want one of timeout`},
		{"proxy\n" + header + "fault toxic latency", "want the delay after it"},
		{"proxy\n" + header + "fault toxic bandwidth", "want kilobytes per second"},
		{"proxy\n" + header + "fault close sockets", "would be toxiproxy's as well"},
		{header + "expect", `want what, "<=" or "="`},
		{header + "expect detect 1s", `detect: want "<=" or "="`},
		{header + "expect detect <= 1s", "detect: no fault stands before it"},
		{header + "fault reject\nexpect detect = 1s", `detect: want "<=" and a duration`},
		{header + "fault reject\nexpect recover <= soon", `recover: "soon": want a duration`},
		{header + "expect failed = none", `failed: "none": want a number from 0`},
		{header + "expect failed = 0 calls", `"calls" is too much`},
		{header + "expect happiness = 1", `happiness: want one of detect`},
		{header + "expect told <= 1s", "told: no fault stands before it"},
		{header + "expect put = 0", "put: no fault stands before it"},
		{header + "expect returns <= 1s", `returns: want "restarts" before it`},
		{header + "expect failed <= plain", `only "failed <= plain" compares with it, and wants it among the clients`},
		{header + "expect evicted <= plain", `only "failed <= plain"`},
		{header + "expect evicted = 0 full", `"full": want a value after it`},
		{header + "expect completed >= 0.9x plain", `completed: want "plain" and "calls" before it`},
		{header + "expect completed <= 0.9x plain", `completed: want ">="`},
		{"server nginx\nrow 1\ninjected x\nclient scale\nexpect probes = 0", `want "server grpc", which counts them`},
		{header + "expect p99.9 <= 1.5x control", `p99.9: want "control" and "calls" before it`},
		{"control\n" + header + "calls every 1s\nexpect p99.9 <= 1.5 control", "want a ratio to the control"},
		{"control\n" + header + "calls every 1s\nexpect p99.9 <= -1x control", `"-1x": want a ratio`},
	} {
		if _, err := faults.Parse("dir/s.txt", tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.text, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		script, err := faults.Parse("s.txt", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "s.txt:") {
				t.Errorf("%v does not begin with the file", err)
			}
			return
		}
		if len(script.Rows) == 0 || len(script.Clients) == 0 || script.Server.Count < 1 || len(script.Steps) == 0 {
			t.Errorf("%+v was accepted", script)
		}
	})
}
