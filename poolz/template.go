package poolz

import (
	_ "embed" // the page's parts
	"html/template"

	"github.com/davidwartell/go-grpcpool/scale"
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
	"css":       func() template.CSS { return template.CSS(pageCSS) }, //nolint:gosec // our own file
	"js":        func() template.JS { return template.JS(pageJS) },    //nolint:gosec // our own file
	"group":     group[int],
	"group64":   group[uint64],
	"plural":    plural,
	"share":     share,
	"tone":      tone,
	"stateTone": stateTone,
	"spark":     spark,
	"latest":    latest,
	"longest":   longest,
	"unlimited": func() uint32 { return scale.Unlimited },
	"recent":    func(events []eventView) []eventView { return events[:min(shownEvents, len(events))] },
	"earlier":   func(events []eventView) []eventView { return events[min(shownEvents, len(events)):] },
}).Parse(pageHTML))
