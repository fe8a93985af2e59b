// verify_log checks a log of agent/audit/FORMAT.md with golang.org/x/mod/sumdb.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(os.Args[1], name))
	must(err)
	return data
}

// p256 verifies algorithm 02, which sumdb/note itself does not know.
type p256 struct {
	name string
	hash uint32
	key  *ecdsa.PublicKey
}

func (v p256) Name() string    { return v.name }
func (v p256) KeyHash() uint32 { return v.hash }
func (v p256) Verify(msg, sig []byte) bool {
	sum := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(v.key, sum[:], sig)
}

func verifier(vkey string) note.Verifier {
	parts := strings.SplitN(vkey, "+", 3)
	blob, err := base64.StdEncoding.DecodeString(parts[2])
	must(err)
	if blob[0] == 1 {
		v, err := note.NewVerifier(vkey)
		must(err)
		return v
	}
	key, err := x509.ParsePKIXPublicKey(blob[1:])
	must(err)
	sum := sha256.Sum256(blob[1:])
	return p256{parts[0], binary.BigEndian.Uint32(sum[:]), key.(*ecdsa.PublicKey)}
}

type store []tlog.Hash

func (s store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, s[i])
	}
	return out, nil
}

func main() {
	var hashes store
	var roots []tlog.Hash
	lines := bytes.Split(bytes.TrimSuffix(read("entries"), []byte("\n")), []byte("\n"))
	for i, line := range lines {
		more, err := tlog.StoredHashes(int64(i), line, hashes)
		must(err)
		hashes = append(hashes, more...)
		root, err := tlog.TreeHash(int64(i)+1, hashes)
		must(err)
		roots = append(roots, root)
	}
	keys := strings.Fields(string(read("vkeys")))
	verifiers := note.VerifierList(verifier(keys[0]), verifier(keys[1]))
	opened, err := note.Open(read("checkpoint"), verifiers)
	must(err)
	if len(opened.Sigs) != 2 || len(opened.UnverifiedSigs) != 0 {
		log.Fatal("not both signatures verified")
	}
	text := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(text[1], 10, 64)
	must(err)
	if size != int64(len(lines)) || text[2] != roots[size-1].String() {
		log.Fatal("the root differs")
	}
	receipts, err := filepath.Glob(filepath.Join(os.Args[1], "receipt.*"))
	must(err)
	for _, name := range receipts {
		data, err := os.ReadFile(name)
		must(err)
		parts := strings.SplitN(string(data), "\n\n", 2)
		rows := strings.Split(parts[0], "\n")
		index, err := strconv.ParseInt(strings.TrimPrefix(rows[2], "index "), 10, 64)
		must(err)
		var proof tlog.RecordProof
		for _, row := range rows[3:] {
			hash, err := tlog.ParseHash(row)
			must(err)
			proof = append(proof, hash)
		}
		must(tlog.CheckRecord(proof, size, roots[size-1], index, tlog.RecordHash(lines[index])))
	}
	for old := int64(1); old < size; old += 7 {
		var proof tlog.TreeProof
		for _, row := range strings.Fields(string(read(fmt.Sprintf("consistency.%d", old)))) {
			hash, err := tlog.ParseHash(row)
			must(err)
			proof = append(proof, hash)
		}
		must(tlog.CheckTree(proof, size, roots[size-1], old, roots[old-1]))
	}
	// Older versions name a tile once for every width that it ever had: the last is the one kept.
	var tiles []tlog.Tile
	for _, tile := range tlog.NewTiles(8, 0, size) {
		if n := len(tiles); n > 0 && tiles[n-1].L == tile.L && tiles[n-1].N == tile.N {
			tiles = tiles[:n-1]
		}
		tiles = append(tiles, tile)
	}
	for _, tile := range tiles {
		want, err := tlog.ReadTileData(tile, hashes)
		must(err)
		if !bytes.Equal(want, read(fmt.Sprintf("tiles/%d.%d", tile.L, tile.N))) {
			log.Fatal("the tile ", tile.Path(), " differs")
		}
	}
	kept, err := os.ReadDir(filepath.Join(os.Args[1], "tiles"))
	must(err)
	if len(kept) != len(tiles) {
		log.Fatal("there are ", len(kept), " tiles, not ", len(tiles))
	}
	fmt.Println("verified", size, len(receipts), len(tiles))
}
