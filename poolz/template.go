package poolz

import (
	_ "embed" // for the parts of the page
	"html/template"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// shownEvents is the number of events that are shown at once; a click shows the others.
const shownEvents = 10

var pageTemplate = template.Must(template.New("poolz").Funcs(template.FuncMap{
	"codeTone":   codeTone,
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
	"shown":      alreadyShown,
	"words":      words,
	"latest":     latest,
	"longest":    longest,
	"recent":     func(events []eventView) []eventView { return events[:min(shownEvents, len(events))] },
	"earlier":    func(events []eventView) []eventView { return events[min(shownEvents, len(events)):] },
}).Parse(pageHTML))
