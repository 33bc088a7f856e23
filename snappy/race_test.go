//go:build race

package snappy_test

const raceEnabled = true
