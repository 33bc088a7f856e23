package suite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/google/go-cmp/cmp"
)

func TestACopyThatAnotherRunJustMadeIsUsed(t *testing.T) {
	dir := t.TempDir()
	w := &Workspace{source: filepath.Join(dir, "source")}
	tree := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "file"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := w.place(filepath.Join(dir, "missing")); err == nil {
		t.Error("no copy was placed, and no error told")
	}
	for _, name := range []string{"first", "second"} {
		if err := w.place(tree(name)); err != nil {
			t.Fatalf("the %s: %v", name, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(w.source, "file")); err != nil || string(got) != "first" {
		t.Errorf("the copy is the %s, error %v", got, err)
	}
}

func TestWhatIsExpectedToDifferIsLeftOutOfTheTestAroundIt(t *testing.T) {
	expected := []string{"Test/A", "Test/A2/x", "Other"}
	for test, want := range map[string][]string{
		results.Whole: expected,
		"Test":        {"Test/A", "Test/A2/x"},
		"Test/A":      nil,
		"Test/A2":     {"Test/A2/x"},
		"Oth":         nil,
	} {
		if diff := cmp.Diff(want, within(test, expected)); diff != "" {
			t.Errorf("%s: %s", test, diff)
		}
	}
}
