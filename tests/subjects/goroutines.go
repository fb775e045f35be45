// cc: go build
// Goroutines, channels, timers and the collector, until TERM. Go's runtime catches every signal.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

var rounds [4]int64

func fail(format string, args ...interface{}) {
	fmt.Printf("FAIL: "+format+"\n", args...)
	os.Exit(1)
}

func main() {
	numbers, digests := make(chan int, 10), make(chan [2]interface{}, 10)
	go func() {
		for n := 0; ; n++ {
			numbers <- n
			atomic.AddInt64(&rounds[0], 1)
			if n%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	go func() {
		for n := range numbers {
			digests <- [2]interface{}{n, sha256.Sum256([]byte(fmt.Sprint(n)))}
			atomic.AddInt64(&rounds[1], 1)
		}
	}()
	go func() {
		expected := 0
		for pair := range digests {
			if pair[0] != expected || pair[1] != sha256.Sum256([]byte(fmt.Sprint(expected))) {
				fail("%v instead of %d", pair[0], expected)
			}
			expected++
			atomic.AddInt64(&rounds[2], 1)
		}
	}()
	go func() {
		for {
			start := time.Now()
			time.Sleep(3 * time.Millisecond)
			if time.Since(start) < 3*time.Millisecond {
				fail("a short sleep")
			}
			garbage := make([][]byte, 100)
			for i := range garbage {
				garbage[i] = make([]byte, 1000+i)
			}
			atomic.AddInt64(&rounds[3], 1)
		}
	}()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	fmt.Println("READY")
	<-told
	before := [4]int64{}
	for i := range before {
		before[i] = atomic.LoadInt64(&rounds[i])
	}
	for i := range before {
		for patience := 0; atomic.LoadInt64(&rounds[i]) == before[i]; patience++ {
			if patience > 500 {
				fail("goroutine %d stands still", i)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	fmt.Println("OK")
}
