// An OCI registry with the referrers API, on plain HTTP, for test clusters.
//
// Blobs are files DIR/blobs/sha256/HEX, so memory stays small whatever is pushed; the
// registry serves whatever these files hold, which lets a test change an artifact's bytes
// behind the back of everyone who trusts the registry. Manifests, which the library keeps in
// memory only, are journalled to DIR/manifests and replayed, so that a registry that was
// stopped comes back with all it had.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs adds to the library's disk store a Stat that does not hash the file: with it a
// large blob costs one read a pull instead of two.
type blobs struct {
	registry.BlobHandler
	registry.BlobPutHandler
	registry.BlobDeleteHandler
	dir string
}

func newBlobs(dir string) *blobs {
	disk := registry.NewDiskBlobHandler(dir)
	return &blobs{
		BlobHandler:       disk,
		BlobPutHandler:    disk.(registry.BlobPutHandler),
		BlobDeleteHandler: disk.(registry.BlobDeleteHandler),
		dir:               dir,
	}
}

func (b *blobs) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	info, err := os.Stat(filepath.Join(b.dir, h.Algorithm, h.Hex))
	if errors.Is(err, os.ErrNotExist) {
		return 0, registry.ErrNotFound
	} else if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// change is one journalled request that altered a manifest.
type change struct {
	Method      string `json:"method"`
	Path        string `json:"path"`
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
}

type journal struct {
	next http.Handler
	dir  string
	mu   sync.Mutex
	seq  int
}

func (j *journal) replay() error {
	files, err := filepath.Glob(filepath.Join(j.dir, "*.json"))
	if err != nil {
		return err
	}
	sort.Strings(files)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var c change
		if err := json.Unmarshal(raw, &c); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		req := httptest.NewRequest(c.Method, c.Path, bytes.NewReader(c.Body))
		req.Header.Set("Content-Type", c.ContentType)
		j.next.ServeHTTP(httptest.NewRecorder(), req)
		if _, err := fmt.Sscanf(filepath.Base(file), "%d.json", &j.seq); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) record(c change) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	j.seq++
	name := filepath.Join(j.dir, fmt.Sprintf("%08d.json", j.seq))
	if err := os.WriteFile(name+".tmp", raw, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (j *journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	alters := r.Method == http.MethodPut || r.Method == http.MethodDelete
	if !alters || !strings.Contains(r.URL.Path, "/manifests/") {
		j.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	// One alteration at a time, so that the journal has them in the order they took effect.
	j.mu.Lock()
	defer j.mu.Unlock()
	sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	j.next.ServeHTTP(sw, r)
	if sw.status >= 300 {
		return
	}
	c := change{r.Method, r.URL.Path, r.Header.Get("Content-Type"), body}
	if err := j.record(c); err != nil {
		log.Printf("journal: %v", err)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:5000", "address to serve on")
	dir := flag.String("dir", "", "folder for blobs and manifests")
	flag.Parse()
	if *dir == "" {
		return errors.New("-dir is required")
	}
	blobDir, manifestDir := filepath.Join(*dir, "blobs"), filepath.Join(*dir, "manifests")
	for _, d := range []string{blobDir, manifestDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	handler := registry.New(
		registry.WithReferrersSupport(true),
		registry.WithBlobHandler(newBlobs(blobDir)),
		registry.Logger(log.New(os.Stderr, "", log.LstdFlags)),
	)
	j := &journal{next: handler, dir: manifestDir}
	if err := j.replay(); err != nil {
		return err
	}
	server := &http.Server{Addr: *listen, Handler: j, ReadHeaderTimeout: 30 * time.Second}
	return server.ListenAndServe()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}
