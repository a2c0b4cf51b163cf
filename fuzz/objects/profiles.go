// What the profiles of Go were made with: `go build -trimpath`, then `work cpu.pb.gz heap.pb.gz`, and `work cpu-2.pb.gz heap.pb.gz heavy`.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"sort"
	"strconv"
	"time"
)

func hash(n int) (sum byte) {
	var b [4096]byte
	for i := 0; i < n; i++ {
		s := sha256.Sum256(b[:])
		b[0] = s[0]
		sum ^= s[1]
	}
	return
}

func sorting(n int) int {
	a := make([]string, n)
	for i := range a {
		a[i] = strconv.Itoa(i * 7919 % n)
	}
	sort.Strings(a)
	return len(a[0])
}

var keep [][]byte

func main() {
	f, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(f)
	end := time.Now().Add(1500 * time.Millisecond)
	k := 0
	heavy := len(os.Args) > 3
	for time.Now().Before(end) {
		k += int(hash(300))
		k += sorting(3000)
		if heavy {
			k += sorting(9000)
		}
		keep = append(keep, make([]byte, 30000))
	}
	pprof.StopCPUProfile()
	f.Close()
	h, _ := os.Create(os.Args[2])
	runtime.GC()
	pprof.WriteHeapProfile(h)
	h.Close()
	fmt.Println(k)
}
