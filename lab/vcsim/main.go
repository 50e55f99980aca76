// A vCenter for the lab: VMware's own simulator, with the lab's machines in its inventory and power tasks that move real processes.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
	"github.com/vmware/govmomi/vim25"
)

// config is written by lab/vcenter.ts.
type config struct {
	Listen       string     `json:"listen"`
	Certificate  string     `json:"certificate"`
	Key          string     `json:"key"`
	User         string     `json:"user"`
	PasswordFile string     `json:"passwordFile"`
	Machines     []*machine `json:"machines"`
}

func main() {
	path := flag.String("config", "", "file with listen address, certificate, sign-in and machines")
	flag.Parse()
	text, err := os.ReadFile(*path)
	if err != nil {
		log.Fatal(err)
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		log.Fatal(err)
	}
	password, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		log.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		log.Fatal(err)
	}

	model := simulator.VPX()
	model.Machine = 0
	model.Host = 0
	model.ClusterHost = 1
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	client, err := vim25.NewClient(ctx, model.Service)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range c.Machines {
		vm, err := addMachine(ctx, client, m)
		if err != nil {
			log.Fatalf("machine %s: %v", m.Name, err)
		}
		go vm.follow(time.Second)
	}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	model.Service.Listen = &url.URL{Host: c.Listen, User: url.UserPassword(c.User, strings.TrimSpace(string(password)))}
	model.Service.RegisterEndpoints = true
	model.Service.NewServer()
	log.Printf("vcenter: listening on %s with %d machines", c.Listen, len(c.Machines))
	select {}
}
