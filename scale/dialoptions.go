package scale

import (
	"fmt"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
)

// Dial options are opaque. NewClient has to see into them all the same: it wraps what
// grpc.WithResolvers and grpc.WithDefaultServiceConfig hold, and finds its own options,
// also where a library has wrapped them. So it looks, by reflection, at what grpc-go does
// not export: the struct that options are applied to, the options that hold a function,
// and those that hold other options. It guesses nothing: where grpc-go differs from 1.85,
// for which this was written, NewClient does without (see clientOptions.wrap).

// grpcOptions are the two of a program's dial options that NewClient has to know.
type grpcOptions struct {
	resolvers     []resolver.Builder // of grpc.WithResolvers, in order
	serviceConfig *string            // of grpc.WithDefaultServiceConfig, nil without
}

var dialOptionType = reflect.TypeFor[grpc.DialOption]()

// seeThrough returns what opts come down to, in order: options of grpc-go and of this
// package, without what was wrapped around them or holds several. The error names an
// option that it could not see through.
func seeThrough(opts []grpc.DialOption) (plain []grpc.DialOption, err error) {
	var sealed grpc.DialOption
	defer func() {
		if recover() != nil { // reflect panics where a type is not what it was
			err = fmt.Errorf("scale: the dial option %T cannot be read", sealed)
		}
	}()
	for _, sealed = range opts {
		inner, ok := unwrap(sealed)
		if !ok {
			return plain, fmt.Errorf("scale: the dial option %T cannot be read", sealed)
		}
		joined, ok := joinedIn(inner)
		if !ok {
			plain = append(plain, inner)
			continue
		}
		several, err := seeThrough(joined)
		plain = append(plain, several...)
		if err != nil {
			return plain, err
		}
	}
	return plain, nil
}

// mostWraps bounds how often an option may be wrapped: one may hold itself. Such an
// option makes grpc.NewClient recurse for ever, and must not do so here.
const mostWraps = 100

// unwrap returns the option of grpc-go or of this package within opt. Another package
// cannot write the method of a grpc.DialOption, only embed what has it. So opt either
// is one, or a struct, or a pointer to one, that embeds one at some depth.
func unwrap(opt grpc.DialOption) (grpc.DialOption, bool) {
	for range mostWraps {
		t := reflect.TypeOf(opt)
		if t == nil {
			return nil, false
		}
		if isPlain(t) {
			return opt, true
		}
		v := reflect.New(t).Elem()
		v.Set(reflect.ValueOf(opt))
		var ok bool
		if opt, ok = promoted(v); !ok {
			return nil, false
		}
	}
	return nil, false
}

// isPlain reports whether t has a method of its own for grpc.DialOption.
func isPlain(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t == reflect.TypeFor[option]() || t.PkgPath() == reflect.TypeFor[grpc.EmptyDialOption]().PkgPath()
}

// promoted returns the embedded option whose method is the method of v, by Go's rule:
// the one that is embedded least deep.
func promoted(v reflect.Value) (grpc.DialOption, bool) {
	for level := []reflect.Value{v}; len(level) > 0; {
		var deeper []reflect.Value
		for _, v := range level {
			if v.Kind() == reflect.Pointer {
				v = v.Elem()
			}
			if v.Kind() != reflect.Struct {
				return nil, false
			}
			for i := range v.NumField() {
				t := v.Type().Field(i)
				if !t.Anonymous || !t.Type.Implements(dialOptionType) && !reflect.PointerTo(t.Type).Implements(dialOptionType) {
					continue
				}
				if t.Type.Kind() == reflect.Interface || isPlain(t.Type) {
					return reflect.TypeAssert[grpc.DialOption](exported(v.Field(i)))
				}
				deeper = append(deeper, exported(v.Field(i)))
			}
		}
		level = deeper
	}
	return nil, false
}

// joinedIn returns the options that opt holds, if it holds several.
func joinedIn(opt grpc.DialOption) ([]grpc.DialOption, bool) {
	v := reflect.ValueOf(opt)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || !v.Elem().FieldByName("opts").IsValid() {
		return nil, false
	}
	return reflect.TypeAssert[[]grpc.DialOption](exported(v.Elem().FieldByName("opts")))
}

// inspect reads grpc-go's own among plain dial options.
func inspect(plain []grpc.DialOption) (found grpcOptions, ok bool) {
	defer func() {
		if recover() != nil { // see seeThrough
			found, ok = grpcOptions{}, false
		}
	}()
	target := reflect.New(dialOptionType.Method(0).Type.In(0).Elem()) // of apply(*dialOptions)
	for _, opt := range plain {
		if _, own := opt.(option); own || holdsNumbersOnly(reflect.TypeOf(opt)) {
			continue
		}
		exported(reflect.ValueOf(opt).Elem().FieldByName("f")).Call([]reflect.Value{target})
	}
	if found.resolvers, ok = reflect.TypeAssert[[]resolver.Builder](exported(target.Elem().FieldByName("resolvers"))); !ok {
		return grpcOptions{}, false
	}
	if found.serviceConfig, ok = reflect.TypeAssert[*string](exported(target.Elem().FieldByName("defaultServiceConfigRawJSON"))); !ok {
		return grpcOptions{}, false
	}
	return found, true
}

// holdsNumbersOnly reports whether an option of grpc-go's can be neither of the two
// that have to be known: grpc.EmptyDialOption, grpc.MaxHeaderListSizeDialOption.
func holdsNumbersOnly(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for i := range t.NumField() {
		if kind := t.Field(i).Type.Kind(); kind < reflect.Bool || kind > reflect.Complex128 {
			return false
		}
	}
	return true
}

// exported is the field v as if its name began with a capital letter.
func exported(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
}
