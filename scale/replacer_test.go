package scale_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool/scale"
)

// A Replacer tells when its first channel becomes active and when its last one goes idle
// or is closed, once each, whichever way the channels came under it.
func TestAReplacerTellsWhenItsFirstChannelComesAndItsLastGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		var mu sync.Mutex
		var told []bool
		r.OnUse(func() {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r.InUse())
		})
		want := func(what string, expected ...bool) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, expected) {
				t.Errorf("%s: told %v, want %v", what, told, expected)
			}
		}
		network, _ := strictInMemory(t)
		first := network.channel(t, scale.WithReplacer(&r), grpc.WithIdleTimeout(0))
		want("before a call")
		mustHammer(t, first.stub, 1, 1)
		want("after a call", true)
		second := network.channel(t, scale.WithReplacer(&r), grpc.WithTransportCredentials(naming{insecure.NewCredentials(), &r}), grpc.WithIdleTimeout(time.Minute))
		mustHammer(t, second.stub, 1, 1)
		_ = first.Close()
		want("with the second channel left", true)
		if n := len(slices.Collect(r.Subchannels())); n != 1 {
			t.Errorf("%d subchannels, want the second channel's", n)
		}
		elapse(3 * time.Minute)
		want("with the second channel idle", true, false)
		mustHammer(t, second.stub, 1, 1)
		want("with the second channel awake", true, false, true)
		_ = second.Close()
		want("without channels", true, false, true, false)
		if n := len(slices.Collect(r.Subchannels())); n != 0 {
			t.Errorf("%d subchannels without channels", n)
		}
	})
}

// naming are credentials that name their Replacer.
type naming struct {
	credentials.TransportCredentials

	replacer *scale.Replacer
}

func (n naming) Replacer() *scale.Replacer { return n.replacer }

func (n naming) Clone() credentials.TransportCredentials {
	return naming{n.TransportCredentials.Clone(), n.replacer}
}

func TestCredentialsThatNameAReplacerPutTheirChannelUnderIt(t *testing.T) {
	for name, r := range map[string]*scale.Replacer{"one": new(scale.Replacer), "none": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, _ := strictInMemory(t)
				c := network.channel(t, grpc.WithTransportCredentials(naming{insecure.NewCredentials(), r}), grpc.WithIdleTimeout(0))
				mustHammer(t, c.stub, 1, 1)
				if r == nil {
					return
				}
				r.Replace("rotation", time.Second)
				elapse(5 * time.Second)
				if sub := c.observer.Snapshot().Subchannels[0]; sub.Replaced != 1 || len(sub.Connections) != 1 {
					t.Errorf("after Replace: %+v", sub)
				}
			})
		})
	}
}
