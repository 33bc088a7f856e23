package compressors

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// Payload is a kind of message. All are made from fixed seeds, so that every run and
// every machine measures the same bytes. There are several messages of each kind: over
// a single one, a processor soon predicts every branch of a compressor, as it never
// would in a server. Both ways are measured.
type Payload struct {
	Name string

	count, size int
	generate    func(t text, size int) []byte
}

// Payloads are all kinds of messages, from small to large.
func Payloads() []Payload {
	return []Payload{
		{"100B", 512, 100, records},
		{"1KiB-protobuf", 256, 1 << 10, records},
		{"10KiB-json", 64, 10 << 10, jsonRows},
		{"100KiB-logs", 16, 100 << 10, structuredLogs},
		{"100KiB-text", 16, 100 << 10, textLogs}, // hard for all: short matches, few of them
		{"1MiB-mixed", 4, 1 << 20, mixed},
		{"1MiB-random", 4, 1 << 20, random},
	}
}

// Messages makes the messages, the same ones at every call. They are not kept: a heap
// that holds them is collected less often, and whatever else a program measures would
// look cheaper.
func (p Payload) Messages() [][]byte { return p.First(p.count) }

// First makes the first n of the messages, or all if there are no more.
func (p Payload) First(n int) [][]byte {
	t := text{rand.New(rand.NewPCG(1, 2))} //nolint:gosec // no secret
	messages := make([][]byte, min(n, p.count))
	for i := range messages {
		messages[i] = p.generate(t, p.size)[:p.size]
	}
	return messages
}

// text makes random values that look like those of a service.
type text struct{ *rand.Rand }

// vocabulary is ordered by how often its words are used, as in a language.
var vocabulary = sync.OnceValue(func() []string {
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // no secret
	const syllables = "ba ce di fo gu ha ken lor min nat op pre qui ra ser ti un ver win ex yo za con ate ing ment"
	parts := strings.Fields(syllables)
	words := make([]string, 4000)
	for i := range words {
		for range 1 + r.IntN(4) {
			words[i] += parts[r.IntN(len(parts))]
		}
	}
	return words
})

func (t text) word() string {
	f := t.Float64()
	words := vocabulary()
	return words[int(f*f*f*float64(len(words)))]
}

func (t text) words(n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = t.word()
	}
	return strings.Join(words, " ")
}

// structuredLogs is one JSON object a line, as services export to a collector.
func structuredLogs(t text, size int) []byte {
	var b []byte
	now := t.IntN(1e9)
	for len(b) < size {
		now += t.IntN(2000)
		b = fmt.Appendf(b, `{"time":"2024-05-17T%02d:%02d:%02d.%03dZ","level":"%s","logger":"%s","msg":"%s",`+
			`"trace_id":"%016x%016x","span_id":"%016x","duration_ms":%.3f,"user":%d,"path":"/api/v1/%s/%s"}`+"\n",
			now/3600e3%24, now/60e3%60, now/1e3%60, now%1e3, levels[t.IntN(len(levels))], t.word(),
			sayings()[t.IntN(len(sayings()))], t.Uint64(), t.Uint64(), t.Uint64(), t.Float64()*100, t.IntN(1e5), t.word(), t.word())
	}
	return b
}

var levels = strings.Fields("INFO INFO INFO INFO DEBUG WARN ERROR")

// sayings are what a program says, over and over.
var sayings = sync.OnceValue(func() []string {
	t := text{rand.New(rand.NewPCG(5, 6))} //nolint:gosec // no secret
	m := make([]string, 80)
	for i := range m {
		m[i] = t.words(3 + t.IntN(8))
	}
	return m
})

// textLogs is lines of prose with numbers in them, hardly two alike.
func textLogs(t text, size int) []byte {
	var b []byte
	now := t.IntN(1e9)
	for len(b) < size {
		now += t.IntN(2000)
		b = fmt.Appendf(b, "2024-05-17T%02d:%02d:%02d.%03dZ ", now/3600e3%24, now/60e3%60, now/1e3%60, now%1e3)
		switch t.IntN(4) {
		case 0:
			b = fmt.Appendf(b, "INFO [%s-%d] %s: request id=%016x took %dms status=%d bytes=%d\n",
				t.word(), t.IntN(16), t.words(4), t.Uint64(), t.IntN(900), 200+t.IntN(4)*100, t.IntN(1<<16))
		case 1:
			b = fmt.Appendf(b, "WARN [%s] retrying %s/%s after %v: %s\n", t.word(), t.word(), t.word(), t.Float32(), t.words(6))
		case 2:
			b = fmt.Appendf(b, "INFO [http] 10.%d.%d.%d \"GET /%s/%s?page=%d\" %s\n",
				t.IntN(256), t.IntN(256), t.IntN(256), t.word(), t.word(), t.IntN(50), t.words(3))
		default:
			b = fmt.Appendf(b, "DEBUG [%s] %s\n", t.word(), t.words(4+t.IntN(12)))
		}
	}
	return b
}

func jsonRows(t text, size int) []byte {
	b := []byte(`{"items":[`)
	for len(b) < size {
		b = fmt.Appendf(b, `{"id":%d,"name":"%s","email":"%s.%s@example.com","active":%t,"score":%.4f,"tags":["%s","%s"],"created":%d,"note":"%s"},`,
			t.IntN(1e6), t.words(2), t.word(), t.word(), t.IntN(2) == 0, t.Float64()*100, t.word(), t.word(), 1700000000+t.IntN(1e7), t.words(t.IntN(12)))
	}
	return b
}

// records is a protobuf message with a repeated field of small messages.
func records(t text, size int) []byte {
	now := uint64(1700000000e9)
	var b []byte
	for len(b) < size {
		now += t.Uint64N(1e9)
		var m []byte
		m = protowire.AppendTag(m, 1, protowire.VarintType)
		m = protowire.AppendVarint(m, t.Uint64N(1<<40))
		m = protowire.AppendTag(m, 2, protowire.BytesType)
		m = protowire.AppendString(m, "regions/"+t.word()+"/hosts/"+t.word())
		m = protowire.AppendTag(m, 3, protowire.Fixed64Type)
		m = protowire.AppendFixed64(m, now)
		m = protowire.AppendTag(m, 4, protowire.VarintType)
		m = protowire.AppendVarint(m, t.Uint64N(200))
		m = protowire.AppendTag(m, 5, protowire.BytesType)
		m = protowire.AppendString(m, t.words(t.IntN(6)))
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendBytes(b, m)
	}
	return b
}

// mixed is pieces of everything, from 8 to 64 KiB long.
func mixed(t text, size int) []byte {
	sources := []func(text, int) []byte{structuredLogs, jsonRows, records, random}
	var b []byte
	for len(b) < size {
		n := 8<<10 + t.IntN(56<<10)
		b = append(b, sources[t.IntN(len(sources))](t, n)[:n]...)
	}
	return b
}

func random(t text, size int) []byte {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = protowire.AppendFixed64(b, t.Uint64())
	}
	return b
}
