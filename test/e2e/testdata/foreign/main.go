// Command foreign only says that it runs. It is built for another ABI of the machine.
package main

func main() { println("it runs") }
