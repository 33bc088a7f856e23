package identity_test

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
)

// logBook keeps log records.
type logBook struct {
	mu      sync.Mutex // guards records
	records []slog.Record
}

func (b *logBook) logger() *slog.Logger { return slog.New(b) }

func (*logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler     { return b }
func (b *logBook) WithGroup(string) slog.Handler          { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, r)
	return nil
}

// times are those of the records of a level with a text in them.
func (b *logBook) times(level, text string) []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var times []time.Time
	for _, r := range b.records {
		if r.Level.String() == level && strings.Contains(r.Message, text) {
			times = append(times, r.Time)
		}
	}
	return times
}

func (b *logBook) count(level, text string) int { return len(b.times(level, text)) }

// says reports whether some record has an attribute of this value.
func (b *logBook) says(key, value string) (found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.records {
		r.Attrs(func(a slog.Attr) bool {
			found = found || a.Key == key && a.Value.String() == value
			return true
		})
	}
	return found
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// There is a warning when a third of a certificate's life is left, one when a tenth is
// left, and one when it has expired: for the client's own and for the server's, while the
// connection stays the same.
func TestTheEndOfACertificateIsSeenComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := localhost(t)
		l.Client = issue(t, l.CA, grpcpooltest.CertRequest{CommonName: "short", NotBefore: begin, NotAfter: begin.Add(30 * time.Minute)})
		l.Server = issue(t, l.CA, grpcpooltest.CertRequest{Hosts: []string{"localhost"}, NotBefore: begin, NotAfter: begin.Add(15 * time.Minute)})
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithTLS(serverTLS(t, l.CA, l.Server)))
		log := new(logBook)
		f, err := newFactory(l, server.Target(), options{identity.WithLogger(log.logger())},
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial), grpc.WithIdleTimeout(0))) // an idle channel has no watch
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, step := range []struct {
			at   time.Duration
			want identity.Expiry
		}{
			{19*time.Minute + 59*time.Second, identity.ExpiryFar},
			{20*time.Minute + time.Second, identity.ExpiryNear},
			{26*time.Minute + 59*time.Second, identity.ExpiryNear},
			{27*time.Minute + time.Second, identity.ExpiryUrgent},
			{30*time.Minute + time.Second, identity.ExpiryPassed},
			{31 * time.Minute, identity.ExpiryPassed},
		} {
			time.Sleep(time.Until(begin.Add(step.at)))
			if got := f.Identity().Expiry; got != step.want {
				t.Errorf("after %v: %q, want %q", step.at, got, step.want)
			}
		}
		for text, want := range map[string]time.Duration{
			"the client's certificate has a third": 20 * time.Minute,
			"the client's certificate has a tenth": 27 * time.Minute,
			"the client's certificate has expired": 30 * time.Minute,
			"the server's certificate has a third": 10 * time.Minute,
			"the server's certificate has a tenth": 13*time.Minute + 30*time.Second,
			"the server's certificate has expired": 15 * time.Minute,
		} {
			times := log.times("WARN", text)
			if len(times) != 1 {
				t.Errorf("%q was logged %d times, want once", text, len(times))
				continue
			}
			if late := times[0].Sub(begin.Add(want)); late < 0 || late > 11*time.Second {
				t.Errorf("%q was logged after %v, want %v", text, times[0].Sub(begin), want)
			}
		}
	})
}

// A program that starts with a certificate near its end is warned at once.
func TestACertificateNearItsEndIsWarnedOfAtOnce(t *testing.T) {
	l, log := localhost(t), new(logBook)
	now := time.Now()
	l.Client = issue(t, l.CA, grpcpooltest.CertRequest{NotBefore: now.Add(-23 * time.Hour), NotAfter: now.Add(time.Hour)})
	f, err := newFactory(l, "localhost:1", options{identity.WithLogger(log.logger())})
	if err != nil {
		t.Fatal(err)
	}
	if n := log.count("WARN", "the client's certificate has a tenth"); n != 1 || f.Identity().Expiry != identity.ExpiryUrgent {
		t.Errorf("%d warnings, %q", n, f.Identity().Expiry)
	}
}

// Handshakes also fail when an authority ends: an intermediate that the client shows,
// or one behind the server's certificate, its root included.
func TestTheEndOfAnAuthorityIsSeenComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hourBefore = time.Hour // authorities of grpcpooltest are valid from then on
		begin := time.Now()
		root := must(grpcpooltest.NewCAUntil("server root", begin.Add(20*time.Minute)))
		clients := newCA(t, "client root")
		intermediate := must(clients.IntermediateBetween("client intermediate", begin, begin.Add(15*time.Minute)))
		client := issue(t, intermediate, grpcpooltest.CertRequest{})
		server := grpcpooltest.NewServer(t,
			grpcpooltest.WithInMemory(),
			grpcpooltest.WithTLS(serverTLS(t, clients, issue(t, root, grpcpooltest.CertRequest{Hosts: []string{"localhost"}}))))
		log := new(logBook)
		f, err := newFactory(&grpcpooltest.Certs{CA: root, Client: grpcpooltest.KeyPair{CertPEM: slices.Concat(client.CertPEM, intermediate.PEM), KeyPEM: client.KeyPEM}},
			server.Target(), options{identity.WithLogger(log.logger())}, grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		time.Sleep(25 * time.Minute)
		rootLife := hourBefore + 20*time.Minute
		for text, want := range map[string]time.Duration{
			"a CA certificate in the client's chain ends soon":      10 * time.Minute,
			"a CA certificate in the client's chain ends very soon": 13*time.Minute + 30*time.Second,
			"a CA certificate in the client's chain has expired":    15 * time.Minute,
			"a CA certificate in the server's chain ends soon":      0, // a quarter is left already
			"a CA certificate in the server's chain ends very soon": rootLife*9/10 - hourBefore,
			"a CA certificate in the server's chain has expired":    20 * time.Minute,
			"the client's certificate has":                          -1,
			"the server's certificate has":                          -1,
		} {
			times := log.times("WARN", text)
			if want < 0 {
				if len(times) != 0 {
					t.Errorf("%q was logged", text)
				}
				continue
			}
			if len(times) != 1 {
				t.Errorf("%q was logged %d times, want once", text, len(times))
				continue
			}
			if late := times[0].Sub(begin.Add(want)); late < 0 || late > 11*time.Second {
				t.Errorf("%q was logged after %v, want %v", text, times[0].Sub(begin), want)
			}
		}
		for _, name := range []string{"CN=server root", "CN=client intermediate"} {
			if !log.says("subject", name) {
				t.Errorf("no line names %s", name)
			}
		}
	})
}

// An authority that lives for ten years is not warned of when a third of that is left.
// Certificates in a chain that are not issuers of the client's do not matter.
func TestAnAuthorityIsWarnedOfWhenItIsTime(t *testing.T) {
	l := localhost(t)
	now, day := time.Now(), 24*time.Hour
	between := func(name string, from, to time.Duration) *grpcpooltest.CA {
		return must(l.CA.IntermediateBetween(name, now.Add(from), now.Add(to)))
	}
	for name, test := range map[string]struct {
		issuer *grpcpooltest.CA
		beside []byte
		want   string // "": no warning
	}{
		"years left":         {between("i", -3000*day, 650*day), nil, ""},
		"months left":        {between("i", -3600*day, 80*day), nil, "ends soon"},
		"weeks left":         {between("i", -3600*day, 20*day), nil, "ends very soon"},
		"short, fresh":       {between("i", -day, 20*day), nil, ""},
		"expired":            {between("i", -20*day, -day), nil, "has expired"},
		"another is expired": {between("i", -day, 20*day), between("old", -20*day, -day).PEM, ""},
	} {
		t.Run(name, func(t *testing.T) {
			log, client := new(logBook), issue(t, test.issuer, grpcpooltest.CertRequest{})
			chain := grpcpooltest.KeyPair{CertPEM: slices.Concat(client.CertPEM, test.issuer.PEM, test.beside), KeyPEM: client.KeyPEM}
			if _, err := newFactory(&grpcpooltest.Certs{CA: l.CA, Client: chain}, "localhost:1", options{identity.WithLogger(log.logger())}); err != nil {
				t.Fatal(err)
			}
			all := log.count("WARN", "")
			if test.want == "" && all != 0 || test.want != "" && (all != 1 || log.count("WARN", "the client's chain "+test.want) != 1) {
				t.Errorf("%d warnings, want %q", all, test.want)
			}
		})
	}
}
