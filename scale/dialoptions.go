package scale

import (
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
)

// grpcOptions are the two of a program's dial options that NewClient has to know,
// because it must wrap what they hold.
type grpcOptions struct {
	resolvers     []resolver.Builder // of grpc.WithResolvers, in order
	serviceConfig *string            // of grpc.WithDefaultServiceConfig, nil without
}

// inspect reads grpc-go's own dial options. They are opaque, so this looks, by
// reflection, at three things that grpc-go does not export: the struct that
// options are applied to, the options that hold a function to apply, and those
// that hold other options. It is false as soon as anything is not as in the
// grpc-go that it was written for (1.85); nothing is guessed, and NewClient then
// does without (see clientOptions.wrap).
func inspect(opts []grpc.DialOption) (found grpcOptions, ok bool) {
	defer func() {
		if recover() != nil { // reflect panics where a type is not what it was
			found, ok = grpcOptions{}, false
		}
	}()
	apply := reflect.TypeFor[grpc.DialOption]().Method(0) // apply(*dialOptions)
	target := reflect.New(apply.Type.In(0).Elem())
	applyTo(target, opts)
	if found.resolvers, ok = reflect.TypeAssert[[]resolver.Builder](exported(target.Elem().FieldByName("resolvers"))); !ok {
		return grpcOptions{}, false
	}
	if found.serviceConfig, ok = reflect.TypeAssert[*string](exported(target.Elem().FieldByName("defaultServiceConfigRawJSON"))); !ok {
		return grpcOptions{}, false
	}
	return found, true
}

// applyTo does to target, a *dialOptions, what grpc.NewClient does.
func applyTo(target reflect.Value, opts []grpc.DialOption) {
	for _, opt := range opts {
		v := reflect.ValueOf(opt)
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			continue // an EmptyDialOption, alone or embedded
		}
		if f := v.Elem().FieldByName("f"); f.IsValid() && f.Kind() == reflect.Func {
			exported(f).Call([]reflect.Value{target})
			continue
		}
		if joined := v.Elem().FieldByName("opts"); joined.IsValid() {
			if inner, ok := reflect.TypeAssert[[]grpc.DialOption](exported(joined)); ok {
				applyTo(target, inner)
			}
		}
	}
}

// exported is the field v as if its name began with a capital letter.
func exported(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
}
