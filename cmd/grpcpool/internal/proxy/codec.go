package proxy

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// message is a gRPC message on its way through: its bytes as they came, by
// reference. Whoever holds a message owns one reference to its buffers.
type message struct {
	data       mem.BufferSlice
	compressed bool // data is in the encoding of the stream it came from
}

// free gives up the buffers, if they have not gone on with Marshal.
func (m *message) free() {
	m.data.Free()
	m.data = nil
}

// codec moves messages by reference. What is not a message it leaves to gRPC's
// codec for protobuf, so that the proxy can answer for itself too.
//
// Its name is empty: the content-subtype of a call passes through.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "" }

// Marshal implements encoding.CodecV2. The reference of v goes to the caller,
// which frees it when the message is written; v is empty from then on. What goes
// into a stream with an encoding as it is, because it came compressed, is marked
// for the rawCompressor.
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

// Unmarshal implements encoding.CodecV2. It takes a reference of its own, since
// gRPC frees data when it returns. v must be empty.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return encoding.GetCodecV2(proto.Name).Unmarshal(data, v)
	}
	if m.data != nil {
		return errors.New("proxy: the message before has not been sent on")
	}
	m.data, m.compressed = unmark(data)
	if !m.compressed {
		m.data.Ref()
	}
	return nil
}

// decodeProto reads m, which stays as it is.
func (m *message) decodeProto(v any) error {
	if m.compressed {
		return errors.New("proxy: the message is compressed")
	}
	if err := encoding.GetCodecV2(proto.Name).Unmarshal(m.data, v); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	return nil
}
