package http1

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

var browserHead = get(
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-GB,en;q=0.5",
	"Accept-Encoding: gzip, deflate", "Proxy-Connection: keep-alive", "Cookie: session="+strings.Repeat("c", 200),
)

func benchmarkHead(b *testing.B, text string, target func(*Request) (Target, error)) {
	b.Helper()
	source := strings.NewReader(text)
	in := bufio.NewReaderSize(source, MaxRequestHead)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		source.Reset(text)
		in.Reset(source)
		head, err := ReadHead(in, MaxRequestHead)
		if err != nil {
			b.Fatal(err)
		}
		r, err := ParseRequest(head)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := target(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHeadConnect(b *testing.B) {
	benchmarkHead(b, "CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\nUser-Agent: curl/8.0\r\n\r\n", (*Request).Authority)
}

func BenchmarkHeadAbsolute(b *testing.B) { benchmarkHead(b, browserHead, (*Request).Absolute) }

func BenchmarkHeadLargest(b *testing.B) {
	head := get(manyFields(MaxFields - 2)...)
	fill := MaxRequestHead - len(head) - len("X: \r\n")
	benchmarkHead(b, strings.TrimSuffix(head, "\r\n")+"X: "+strings.Repeat("x", fill)+"\r\n\r\n", (*Request).Absolute)
}

func BenchmarkChunkedBody(b *testing.B) {
	body := strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 256) + "0\r\n\r\n"
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CopyBody(bufio.NewWriter(io.Discard), bufio.NewReader(strings.NewReader(body)), Framing{Kind: Chunked}); err != nil {
			b.Fatal(err)
		}
	}
}
