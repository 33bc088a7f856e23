//go:build !unix

package main

import "os"

var hangup = []os.Signal{noSignal{}}

// noSignal never comes: signal.Notify without signals would mean all of them.
type noSignal struct{}

func (noSignal) String() string { return "none" }
func (noSignal) Signal()        {}
