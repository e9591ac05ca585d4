// The other end for test_yamux.py: a session of github.com/hashicorp/yamux over a connection that it dials.
//
// usage: peer client|server HOST:PORT
//
// The first line in each stream that is opened to it says what to do there.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

var (
	session *yamux.Session
	gate    sync.Mutex
	resets  int64
)

func main() {
	conn, err := net.Dial("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	config := yamux.DefaultConfig()
	config.KeepAliveInterval = 50 * time.Millisecond
	if os.Args[1] == "client" {
		session, err = yamux.Client(conn, config)
	} else {
		session, err = yamux.Server(conn, config)
	}
	if err != nil {
		log.Fatal(err)
	}
	for {
		gate.Lock()
		gate.Unlock()
		stream, err := session.AcceptStream()
		if err != nil {
			return
		}
		go serve(stream)
	}
}

func serve(stream *yamux.Stream) {
	defer stream.Close()
	reader := bufio.NewReader(stream)
	line, err := reader.ReadString('\n')
	if err != nil {
		return
	}
	var command string
	var count, parallel int
	fmt.Sscan(line, &command, &count, &parallel)
	switch command {
	case "sum":
		sum := sha256.New()
		io.Copy(sum, reader)
		fmt.Fprintf(stream, "%x", sum.Sum(nil))
	case "echo":
		io.Copy(stream, reader)
	case "endless":
		chunk := make([]byte, 10000)
		for err == nil {
			_, err = stream.Write(chunk)
		}
		if err == yamux.ErrConnectionReset {
			atomic.AddInt64(&resets, 1)
		}
	case "ping":
		_, err := session.Ping()
		fmt.Fprint(stream, err)
	case "go-away":
		fmt.Fprint(stream, session.GoAway())
	case "open":
		if opened, err := session.OpenStream(); err == nil {
			opened.Close()
			fmt.Fprint(stream, "opened")
		} else {
			fmt.Fprint(stream, err)
		}
	case "hold":
		gate.Lock()
		fmt.Fprint(stream, "held")
		reader.ReadByte()
		gate.Unlock()
	case "left":
		fmt.Fprint(stream, session.NumStreams()-1, atomic.LoadInt64(&resets))
	case "run":
		fmt.Fprint(stream, run(count, parallel))
	}
}

// run opens count streams, parallel at a time, and says how many were summed up rightly by the peer.
func run(count, parallel int) int64 {
	var good int64
	var wait sync.WaitGroup
	turns := make(chan int)
	for worker := 0; worker < parallel; worker++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for turn := range turns {
				if err := one(turn); err == nil {
					atomic.AddInt64(&good, 1)
				} else {
					log.Print(err)
				}
			}
		}()
	}
	for turn := 0; turn < count; turn++ {
		turns <- turn
	}
	close(turns)
	wait.Wait()
	return good
}

func one(turn int) error {
	stream, err := session.OpenStream()
	if err != nil {
		return err
	}
	defer stream.Close()
	random := rand.New(rand.NewSource(int64(turn)))
	size := random.Intn(20000)
	if turn%100 == 0 {
		size = 2000000
	}
	data := make([]byte, size)
	random.Read(data)
	fmt.Fprintf(stream, "%d\n", size)
	if _, err := stream.Write(data); err != nil {
		return err
	}
	var answer bytes.Buffer
	if _, err := io.Copy(&answer, stream); err != nil {
		return err
	}
	if wanted := fmt.Sprintf("%x", sha256.Sum256(data)); answer.String() != wanted {
		return fmt.Errorf("stream %d: %q, not %q", stream.StreamID(), answer.String(), wanted)
	}
	return nil
}
