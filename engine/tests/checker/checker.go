// A Go program catches every signal it can; its threads check that time and channels behave.
package main

import (
	"fmt"
	"time"
)

func main() {
	numbers := make(chan int)
	for i := 0; i < 4; i++ {
		go func() {
			for k := 0; ; k++ {
				start := time.Now()
				time.Sleep(time.Millisecond)
				if time.Since(start) < time.Millisecond {
					panic("a short sleep")
				}
				numbers <- k
			}
		}()
	}
	sum, last := 0, time.Now()
	for k := range numbers {
		sum += k % 7
		for spin := 0; spin < 1000; spin++ {
			sum ^= spin
		}
		if time.Since(last) > time.Second {
			fmt.Println("alive", sum)
			last = time.Now()
		}
	}
}
