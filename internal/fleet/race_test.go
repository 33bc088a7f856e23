//go:build race

package fleet_test

const smallFleet = 30 // the race detector makes everything ten times as slow
