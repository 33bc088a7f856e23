package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the README shows is part of a program here, so it compiles, and a test runs
// it. A snippet may leave out what stands between its paragraphs.
func TestTheREADMEShowsPartsOfThesePrograms(t *testing.T) {
	programs := programs(t)
	snippets := goSnippets(t, filepath.Join("..", "README.md"))
	if len(snippets) < 2 {
		t.Fatalf("the README has %d snippets in Go, want at least the channel and the pool", len(snippets))
	}
	for _, snippet := range snippets {
		if !slices.ContainsFunc(programs, func(program string) bool { return shows(snippet, program) }) {
			t.Errorf("no program under examples/ has the paragraphs of this snippet in the README:\n%s", snippet)
		}
	}
}

// A program to begin from works with any server. A compressor does not: a server that does
// not have it answers Unimplemented.
func TestTheFirstProgramsNeedNoCompressorOfTheServers(t *testing.T) {
	texts := goSnippets(t, filepath.Join("..", "README.md"))
	texts = append(texts, programs(t)...)
	texts = append(texts, read(t, filepath.Join("..", "example_test.go")))
	for _, text := range texts {
		for _, word := range []string{"grpc.Use" + "Compressor", "go-grpcpool/" + "snappy"} {
			if strings.Contains(text, word) {
				t.Errorf("there is %s in:\n%.400s", word, text)
			}
		}
	}
}

// Links within the repository lead to files that are there.
func TestLinksInTheDocumentsLeadToFiles(t *testing.T) {
	link := regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)"#:]+)(?:#[^)"]*)?[)"]`)
	found := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "bench/results/*.md"} {
		documents, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range documents {
			for _, match := range link.FindAllStringSubmatch(read(t, document), -1) {
				found++
				wantFile(t, document, filepath.Join(filepath.Dir(document), match[1]))
			}
		}
	}
	if found == 0 {
		t.Error("no link was found at all")
	}
}

// DESIGN.md says which files to read first, and what is in each.
func TestTheFilesThatDESIGNNamesAreThere(t *testing.T) {
	design := read(t, filepath.Join("..", "DESIGN.md"))
	for _, want := range []struct{ from, to, path string }{
		{"\n## Where to begin reading\n", "\n## ", "(?m)^[0-9]+\\. `([^`]+)`"},
		{"\n## File map\n\n```\n", "```\n", `(?m)^(\S+)`},
	} {
		_, part, ok := strings.Cut(design, want.from)
		if !ok {
			t.Errorf("DESIGN.md has no part that begins with %q", want.from)
			continue
		}
		part, _, _ = strings.Cut(part, want.to)
		for _, match := range regexp.MustCompile(want.path).FindAllStringSubmatch(part, -1) {
			wantFile(t, "DESIGN.md", filepath.Join("..", match[1]))
		}
	}
}

// Every row of docs/traps.md names tests, or files, of the packages that it names.
func TestTheTestsThatTheTrapsNameAreThere(t *testing.T) {
	part := regexp.MustCompile("(?:`[a-z0-9/]+`, )*(?:`[a-z0-9/]+`|root): |\\bTest[A-Z]\\w+…?|[\\w/]+\\.go\\b")
	found := 0
	for line := range strings.Lines(read(t, filepath.Join("..", "docs", "traps.md"))) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		packages := []string{""}
		for _, word := range part.FindAllString(cells[len(cells)-2], -1) {
			switch in, isPackages := strings.CutSuffix(word, ": "); {
			case isPackages:
				packages = strings.Split(strings.NewReplacer("`", "", "root", ".").Replace(in), ", ")
			case word == "TestMain": // of every package
			default:
				found++
				for _, p := range packages {
					wantTestOrFile(t, p, word)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no test was found at all")
	}
}

// wantTestOrFile wants a file, or a test in a package. With an ellipsis the word is the
// beginning of a test's name.
func wantTestOrFile(t *testing.T, in, word string) {
	t.Helper()
	directory := filepath.Join("..", in)
	if strings.HasSuffix(word, ".go") {
		wantFile(t, "docs/traps.md", filepath.Join(directory, word))
		return
	}
	start, open := strings.CutSuffix("\nfunc "+word, "…")
	if !open {
		start += "("
	}
	files, err := filepath.Glob(filepath.Join(directory, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(file string) bool { return strings.Contains(read(t, file), start) }) {
		t.Errorf("docs/traps.md names %s of package %q, which has no such test", word, in)
	}
}

func wantFile(t *testing.T, document, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("%s names a file that is not there: %v", document, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// shows says whether the paragraphs of the snippet stand in the program, in order.
func shows(snippet, program string) bool {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(snippet), "\n\n") {
		var found bool
		if _, program, found = strings.Cut(program, "\n"+paragraph+"\n"); !found {
			return false
		}
		program = "\n" + program
	}
	return true
}

// programs are the files in Go under this directory, their lines without indentation.
func programs(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		code, err := os.ReadFile(path)
		all = append(all, "\n"+unindented(string(code)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func unindented(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// goSnippets are the fenced blocks in Go of a Markdown file, in the same form.
func goSnippets(t *testing.T, path string) []string {
	t.Helper()
	var snippets []string
	var snippet *strings.Builder
	for line := range strings.Lines(read(t, path)) {
		line = strings.TrimSpace(line)
		switch {
		case snippet == nil && line == "```go":
			snippet = new(strings.Builder)
		case snippet != nil && line == "```":
			snippets = append(snippets, snippet.String())
			snippet = nil
		case snippet != nil:
			snippet.WriteString(line + "\n")
		}
	}
	return snippets
}
