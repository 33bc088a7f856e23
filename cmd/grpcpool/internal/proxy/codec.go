package proxy

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// message is a gRPC message on its way through: a reference to its bytes as received.
// The holder of a message owns one reference to its buffers.
type message struct {
	data       mem.BufferSlice
	compressed bool // data is compressed in the encoding of the stream it came from
}

// free releases the buffers, unless Marshal has passed them on.
func (m *message) free() {
	m.data.Free()
	m.data = nil
}

// codec passes messages on by reference. It leaves other values to gRPC's protobuf
// codec, for the calls that the proxy answers itself.
//
// Its name is empty, so that the content-subtype of a call passes through.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "" }

// Marshal implements encoding.CodecV2. It passes v's reference to the caller, which frees
// it when the message is written, and leaves v empty. It marks a message that is already
// compressed, so that the rawCompressor writes it as it is.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return encoding.GetCodecV2(proto.Name).Marshal(v)
	}
	data := m.data
	m.data = nil
	if m.compressed {
		return slices.Insert(slices.Clone(data), 0, marker()), nil
	}
	return data, nil
}

// Unmarshal implements encoding.CodecV2. It takes its own reference, since gRPC frees
// data when Unmarshal returns. v must be empty.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return encoding.GetCodecV2(proto.Name).Unmarshal(data, v)
	}
	if m.data != nil {
		return errors.New("proxy: the previous message has not been sent")
	}
	m.data, m.compressed = unmark(data)
	if !m.compressed {
		m.data.Ref()
	}
	return nil
}

// decodeProto decodes m, without changing it.
func (m *message) decodeProto(v any) error {
	if m.compressed {
		return errors.New("proxy: the message is compressed")
	}
	if err := encoding.GetCodecV2(proto.Name).Unmarshal(m.data, v); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	return nil
}
