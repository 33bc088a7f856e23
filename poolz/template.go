package poolz

import (
	_ "embed" // the page's parts
	"html/template"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// shownEvents is how many events are in sight; the others are behind a click.
const shownEvents = 10

var pageTemplate = template.Must(template.New("poolz").Funcs(template.FuncMap{
	"expiryTone": expiryTone,
	"css":        func() template.CSS { return template.CSS(pageCSS) }, //nolint:gosec // our own file
	"js":         func() template.JS { return template.JS(pageJS) },    //nolint:gosec // our own file
	"group":      group[int],
	"group64":    group[uint64],
	"plural":     plural,
	"share":      share,
	"tone":       tone,
	"stateTone":  stateTone,
	"spark":      spark,
	"sparkEnd":   sparkEnd,
	"tookWord":   tookWord,
	"words":      words,
	"told":       told,
	"latest":     latest,
	"longest":    longest,
	"recent":     func(events []eventView) []eventView { return events[:min(shownEvents, len(events))] },
	"earlier":    func(events []eventView) []eventView { return events[min(shownEvents, len(events)):] },
}).Parse(pageHTML))
