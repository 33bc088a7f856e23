//go:build linux

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The two ends of the cable. Addresses from TEST-NET-1 (RFC 5737) are nobody's.
const (
	clientAddress = "192.0.2.1"
	serverAddress = "192.0.2.2"
	prefix        = "/30"
	clientDevice  = "client"
	serverDevice  = "server"
)

// commandTimeout bounds a command that takes milliseconds.
const commandTimeout = 20 * time.Second

// network is two network namespaces with a cable between them: this process's own
// and the server's. Neither has a name. They last as long as the processes in them,
// which the kernel ends with this one, so nothing of a network can be left behind.
type network struct {
	tb     testing.TB
	server string // the path of the server's namespace
	faulty bool
	down   bool // the cable, at the client's end
}

// iptablesRestore reads rules of the packet filter.
const iptablesRestore = "iptables-restore"

// Tools are the commands that a scenario needs, beside root's rights.
func Tools() []string { return []string{"ip", iptablesRestore, "nsenter", "ss", "sleep"} }

// find returns the path of a command. Users' PATH often lacks /usr/sbin.
func find(command string) (string, error) {
	var first error
	for _, name := range []string{command, filepath.Join("/usr/sbin", command), filepath.Join("/sbin", command)} {
		path, err := exec.LookPath(name)
		if err == nil {
			return path, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// argvIn is how to run a command of Tools, in a network namespace if in is its path.
func argvIn(in, command string, args ...string) ([]string, error) {
	path, err := find(command)
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	argv := append([]string{path}, args...)
	if in == "" {
		return argv, nil
	}
	nsenter, err := find("nsenter")
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	return append([]string{nsenter, "--net=" + in}, argv...), nil
}

// run runs a command of Tools, in a network namespace if in is its path.
func run(in, command string, args ...string) error {
	argv, err := argvIn(in, command, args...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // a test's own commands
	if err != nil {
		return fmt.Errorf("faults: %s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// newNetwork lays the cable. It refuses to touch the namespace that the tests were
// started in.
func newNetwork(tb testing.TB) *network {
	tb.Helper()
	if err := inOwnNamespace(); err != nil {
		tb.Fatal(err)
	}
	retransmitSeldom(tb)
	holder := hold(tb)
	n := &network{tb: tb, server: fmt.Sprintf("/proc/%d/ns/net", holder.Pid)}
	n.ip("", "link", "set", "lo", "up")
	n.ip("", "link", "add", clientDevice, "type", "veth",
		"peer", "name", serverDevice, "netns", strconv.Itoa(holder.Pid))
	n.ip("", "address", "add", clientAddress+prefix, "dev", clientDevice)
	n.ip("", "link", "set", clientDevice, "up")
	n.ip(n.server, "link", "set", "lo", "up")
	n.ip(n.server, "address", "add", serverAddress+prefix, "dev", serverDevice)
	n.ip(n.server, "link", "set", serverDevice, "up")
	return n
}

// retransmitSeldom has the kernel ask for a connection again after 1, 3, 7 and 15
// seconds, as every Linux before 6.5 does. Newer ones ask every second at first, which
// hides from the scenarios what a client that counts on the kernel would miss.
func retransmitSeldom(tb testing.TB) {
	tb.Helper()
	err := os.WriteFile("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", []byte("0"), 0o600)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // an older kernel has no such setting
		tb.Logf("faults: the kernel may ask for connections every second: %v", err)
	}
}

// hold starts the process that keeps the server's namespace when the server is dead.
func hold(tb testing.TB) *os.Process {
	tb.Helper()
	sleep, err := find("sleep")
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(sleep, "1d") //nolint:gosec,noctx // ended below
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("faults: a network namespace: %v", err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
	})
	return cmd.Process
}

func (n *network) ip(in string, args ...string) {
	n.tb.Helper()
	if err := run(in, "ip", args...); err != nil {
		n.tb.Fatal(err)
	}
}

// Packets are dropped where they come in, so that their sender does not know.
const (
	dropAll = "-A INPUT -i %s -j DROP"
	// A bare acknowledgement is at most 80 bytes long (IP 20, TCP 20 and up to 40
	// of options) and with time stamps alone, as here, 52. The smallest HTTP/2
	// frame in a TLS record makes 83 of them.
	dropData   = "-A INPUT -i %s -p tcp -m length --length 81:65535 -j DROP"
	dropPort   = "-A INPUT -i %s -p tcp --%s %s -j DROP"
	dropSome   = "-A INPUT -i %s -m statistic --mode random --probability %.2f -j DROP"
	rejectAll  = "-A INPUT -i %s -p tcp -j REJECT --reject-with tcp-reset"
	noRules    = "*filter\nCOMMIT\n"
	theseRules = "*filter\n%s\nCOMMIT\n"
)

// beginning lets a fault begin, and tells when that was.
type beginning func() (time.Time, error)

// dropPorts are the rules that drop, on either side, what goes to ports of the server
// (dropServer) or comes from ports of the client (dropConnections), and the answers.
func dropPorts(what string, ports []string) (toServer, toClient string) {
	there, back := "dport", "sport"
	if what == dropConnections {
		there, back = back, there
	}
	rules := func(device, end string) string {
		lines := make([]string, 0, len(ports))
		for _, port := range ports {
			lines = append(lines, fmt.Sprintf(dropPort, device, end, port))
		}
		return strings.Join(lines, "\n")
	}
	return rules(serverDevice, there), rules(clientDevice, back)
}

// prepare makes ready a fault of the network. What it returns lets it begin. ports are
// those that dropServer and dropConnections drop.
func (n *network) prepare(f faultStep, ports []string) (beginning, error) {
	n.faulty = true
	toServer, toClient := "", ""
	switch f.kind {
	case faultLink:
		n.down = true
		s, err := stage(order{"", "ip", "link set " + clientDevice + " down\n"})
		return s.act, err
	case faultClose: // ss takes no orders
		return func() (time.Time, error) { return time.Now(), run("", "ss", "-K", "-t", "-n", "dst", serverAddress) }, nil
	case faultReject:
		toServer = fmt.Sprintf(rejectAll, serverDevice)
	case faultLose:
		toServer = fmt.Sprintf(dropSome, serverDevice, f.amount/100)
		toClient = fmt.Sprintf(dropSome, clientDevice, f.amount/100)
	case faultDrop:
		if f.arg == dropBoth || f.arg == dropToServer {
			toServer = fmt.Sprintf(dropAll, serverDevice)
		}
		if f.arg == dropBoth || f.arg == dropToClient {
			toClient = fmt.Sprintf(dropAll, clientDevice)
		}
		if f.arg == dropDataToServer {
			toServer = fmt.Sprintf(dropData, serverDevice)
		}
		if f.arg == dropServer || f.arg == dropConnections {
			toServer, toClient = dropPorts(f.arg, ports)
		}
	}
	var orders []order
	if toServer != "" {
		orders = append(orders, order{n.server, iptablesRestore, fmt.Sprintf(theseRules, toServer)})
	}
	if toClient != "" {
		orders = append(orders, order{"", iptablesRestore, fmt.Sprintf(theseRules, toClient)})
	}
	s, err := stage(orders...)
	return s.act, err
}

// prepareHeal makes ready the end of every fault of the network.
func (n *network) prepareHeal() (staged, error) {
	if !n.faulty {
		return nil, nil
	}
	orders := []order{{n.server, iptablesRestore, noRules}, {"", "iptables-restore", noRules}}
	if n.down {
		orders = append(orders, order{"", "ip", "link set " + clientDevice + " up\n"})
	}
	return stage(orders...)
}

// healed notes that what prepareHeal made ready has been done.
func (n *network) healed() { n.faulty, n.down = false, false }

// dialling returns the local addresses of the TCP connections of this process's
// namespace that wait for the other side's SYN (state SYN_SENT).
func dialling() ([]string, error) {
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	var local []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "02" {
			local = append(local, fields[1])
		}
	}
	return local, nil
}

// outside is the environment variable that names the namespace that the tests were
// started in.
const outside = "FAULTS_OUTSIDE"

func namespace() (string, error) { return os.Readlink("/proc/self/ns/net") }

func inOwnNamespace() error {
	own, err := namespace()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	if others := os.Getenv(outside); others == "" || others == own {
		return errors.New("faults: this process is in the network namespace of the machine, which no fault may touch")
	}
	return nil
}
