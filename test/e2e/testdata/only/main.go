// Command only is a workload that brings nothing but itself.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	fmt.Println("uid", os.Getuid())
	resp, err := http.Get("http://api.demo.test/") // through the proxy of the environment
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(resp.StatusCode)
}
