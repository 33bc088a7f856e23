package proxy

import "sync"

// memo caches a value for each key that clients send. It is bounded, since clients may
// send anything.
type memo[K comparable, V any] struct {
	mu    sync.RWMutex // guards what follows
	known map[K]V
}

const (
	// maxMemo is the number of keys. Well-behaved clients use fewer.
	maxMemo = 4096

	// maxMemoKey is the size of a key in bytes. Users of a memo check it.
	maxMemoKey = 256
)

// get returns the value for key, or the one that create makes, which may be called
// concurrently for the same key. If there are too many keys the new value is not kept,
// and kept is false.
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
