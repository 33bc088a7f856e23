package results

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Both is the word for all settings in a list of expected differences.
const Both = "both"

// Entry is an expected difference: a test that passes on plain channels and not on
// scale's.
type Entry struct {
	Setting   string // one of the settings, or Both
	Sometimes bool   // it need not occur in every run
	Package   string // as "./test"
	Test      string // with its subtests
	Reason    string
}

// covers reports whether the entry speaks of a test.
func (e Entry) covers(setting, pkg, test string) bool {
	return (e.Setting == Both || e.Setting == setting) && e.Package == pkg &&
		(e.Test == test || strings.HasPrefix(test, e.Test+"/"))
}

// List is a list of expected differences.
type List []Entry

// covers reports whether an entry speaks of a test.
func (l List) covers(setting, pkg, test string) bool {
	return slices.ContainsFunc(l, func(e Entry) bool { return e.covers(setting, pkg, test) })
}

// Of are the entries that speak of a package.
func (l List) Of(setting, pkg string) (entries List) {
	for _, e := range l {
		if e.Package == pkg && (e.Setting == Both || e.Setting == setting) {
			entries = append(entries, e)
		}
	}
	return entries
}

// ReadList reads a list of expected differences. An entry is a line
//
//	SETTING [sometimes] PACKAGE TEST
//
// and, in indented lines below it, the reason. A line that begins with # is a
// comment.
func ReadList(r io.Reader, settings ...string) (List, error) {
	var list List
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		text := strings.TrimSpace(line)
		switch {
		case text == "" || strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			if len(list) == 0 {
				return nil, fmt.Errorf("results: line %d: a reason without an entry above it", n)
			}
			last := &list[len(list)-1]
			last.Reason = strings.TrimSpace(last.Reason + " " + text)
		default:
			entry, err := parseEntry(text, settings)
			if err != nil {
				return nil, fmt.Errorf("results: line %d: %w", n, err)
			}
			list = append(list, entry)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("results: the list of expected differences: %w", err)
	}
	return list, list.check()
}

func parseEntry(line string, settings []string) (Entry, error) {
	words := strings.Fields(line)
	sometimes := len(words) == 4 && words[1] == "sometimes"
	if sometimes {
		words = slices.Delete(words, 1, 2)
	}
	if len(words) != 3 {
		return Entry{}, fmt.Errorf("%q is not: SETTING [sometimes] PACKAGE TEST", line)
	}
	if words[0] != Both && !slices.Contains(settings, words[0]) {
		return Entry{}, fmt.Errorf("%q is no setting; there are %s and %s", words[0], strings.Join(settings, ", "), Both)
	}
	return Entry{Setting: words[0], Sometimes: sometimes, Package: words[1], Test: words[2]}, nil
}

// check finds entries without a reason, and those that another covers.
func (l List) check() error {
	for i, e := range l {
		if e.Reason == "" {
			return fmt.Errorf("results: %s %s: no reason is given below it", e.Package, e.Test)
		}
		for j, other := range l {
			if i != j && e.covers(other.Setting, other.Package, other.Test) {
				return fmt.Errorf("results: %s %s is expected twice", other.Package, other.Test)
			}
		}
	}
	return nil
}
