package proxy

import "sync"

// memo remembers a value for each key: what is the same for many calls, and depends on
// what clients say. It is bounded, as clients may say anything.
type memo[K comparable, V any] struct {
	mu    sync.RWMutex // guards what follows
	known map[K]V
}

const (
	// maxMemo bounds what is remembered. It is more than what well-behaved clients say.
	maxMemo = 4096

	// maxMemoKey bounds what a key says, in bytes; the memo's user sees to that.
	maxMemoKey = 256
)

// get returns what is remembered for key, or else what create makes, which may be
// called at the same time for the same key. Beyond the bound create's is not kept, and
// kept is false.
func (m *memo[K, V]) get(key K, create func(K) V) (value V, kept bool) {
	m.mu.RLock()
	value, kept = m.known[key]
	m.mu.RUnlock()
	if kept {
		return value, true
	}
	value = create(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if other, found := m.known[key]; found {
		return other, true
	}
	if len(m.known) >= maxMemo {
		return value, false
	}
	if m.known == nil {
		m.known = make(map[K]V)
	}
	m.known[key] = value
	return value, true
}
