// VMware's vCenter simulator for tests: listens on a free loopback port and prints its URL.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net/url"

	"github.com/vmware/govmomi/simulator"
)

func main() {
	machines := flag.Int("vm", 5, "machines per resource pool")
	flag.Parse()
	model := simulator.VPX()
	model.Machine = *machines
	if err := model.Create(); err != nil {
		panic(err)
	}
	model.Service.TLS = &tls.Config{}
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword("administrator@vsphere.local", "Passw0rd! <&>")}
	server := model.Service.NewServer()
	fmt.Println(server.URL.String())
	select {}
}
