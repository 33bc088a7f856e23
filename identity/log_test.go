package identity_test

import (
	"bytes"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// lines are the records as text, each with its attributes.
func (b *logBook) lines() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.records {
		line := r.Level.String() + " " + r.Message
		r.Attrs(func(a slog.Attr) bool {
			line += " " + a.Key + "=" + a.Value.String()
			return true
		})
		all = append(all, line)
	}
	return all
}

// A key may come to be where it does not belong, and be broken. What is logged about it, and
// what Info shows, must not hold a part of it.
func TestKeysAreNeverLogged(t *testing.T) {
	changed := func(key []byte, at int, to byte) []byte {
		broken := bytes.Clone(key)
		broken[at] = to
		return broken
	}
	for name, breakIt := range map[string]func(t *testing.T, b *inBubble, key []byte){
		"in the certificate's file": func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.cert, key) },
		"in the CA's file":          func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.ca, key) },
		"cut off":                   func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.key, cutOff(key)) },
		"without its BEGIN": func(t *testing.T, b *inBubble, key []byte) {
			write(t, b.files.key, key[bytes.IndexByte(key, '\n')+1:])
		},
		"with a wrong character": func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.key, changed(key, 60, '#')) },
		"with another character": func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.key, changed(key, 60, 'A')) },
		"of another certificate": func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.key, key) },
		"as DER": func(t *testing.T, b *inBubble, key []byte) {
			block, _ := pem.Decode(key)
			write(t, b.files.key, block.Bytes)
		},
		"as base64, in one line":  func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.key, oneBase64(key)) },
		"in the wrong file, thus": func(t *testing.T, b *inBubble, key []byte) { write(t, b.files.cert, oneBase64(key)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newInBubble(t)
				key := issue(t, b.l.CA, grpcpooltest.CertRequest{}).KeyPEM
				breakIt(t, b, key)
				time.Sleep(time.Minute)
				lines := b.log.lines()
				if b.log.count("WARN", "reload failed") != 1 {
					t.Fatalf("the file is not missed: %v", lines)
				}
				secret := string(oneBase64(key))
				for _, line := range append(lines, b.factory.Identity().LastError.Error()) {
					for at := range len(secret) - 12 {
						if strings.Contains(line, secret[at:at+12]) {
							t.Fatalf("a part of the key is in %q", line)
						}
					}
					if strings.ContainsFunc(line, unicode.IsControl) {
						t.Errorf("%q is not one line of text", line)
					}
				}
			})
		})
	}
}

// oneBase64 is what is between BEGIN and END, in one line.
func oneBase64(key []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(key), []byte("\n"))
	return bytes.Join(lines[1:len(lines)-1], nil)
}

func TestEveryWarningSaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		now := time.Now()
		b.files.put(t, b.l.CA.PEM, issue(t, b.l.CA, grpcpooltest.CertRequest{NotBefore: now, NotAfter: now.Add(10 * time.Minute)}))
		time.Sleep(8 * time.Minute) // it is in use, and about to expire
		remove(t, b.files.ca)
		time.Sleep(30 * time.Second)
		for text, want := range map[string]int{"": 2, "the client's certificate has a third": 1, "reload failed": 1} {
			if n := b.log.count("WARN", text); n != want {
				t.Errorf("%d warnings about %q, want %d: %v", n, text, want, b.log.lines())
			}
		}
		for _, line := range b.log.lines() {
			if !strings.HasPrefix(line, "WARN") {
				continue
			}
			if !strings.HasPrefix(line, "WARN identity: ") || !strings.Contains(line, " hint=") {
				t.Errorf("the line does not say what to do: %s", line)
			}
		}
	})
}
