// Imports an OVA into VMware's vCenter simulator by the API that vSphere's own clients use: import spec, lease, upload, complete.
package main

import (
	"archive/tar"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/ovf"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type result struct {
	Name       string   `json:"name"`
	CPUs       int32    `json:"cpus"`
	MemoryMiB  int32    `json:"memoryMiB"`
	Devices    []string `json:"devices"`
	DiskKiB    int64    `json:"diskKiB"`
	Properties []string `json:"properties"`
	Uploaded   int64    `json:"uploadedBytes"`
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// open leaves the reader at the named file of the archive.
func open(path string, is func(string) bool) (*os.File, *tar.Reader, *tar.Header) {
	file, err := os.Open(path)
	must(err)
	reader := tar.NewReader(file)
	for {
		header, err := reader.Next()
		must(err)
		if is(header.Name) {
			return file, reader, header
		}
	}
}

func main() {
	path := os.Args[1]
	file, reader, _ := open(path, func(name string) bool { return strings.HasSuffix(name, ".ovf") })
	descriptor, err := io.ReadAll(reader)
	must(err)
	must(file.Close())
	envelope, err := ovf.Unmarshal(strings.NewReader(string(descriptor)))
	must(err)

	model := simulator.VPX()
	must(model.Create())
	defer model.Remove()
	model.Service.TLS = new(tls.Config)
	server := model.Service.NewServer()
	defer server.Close()
	ctx := context.Background()
	client, err := govmomi.NewClient(ctx, server.URL, true)
	must(err)
	finder := find.NewFinder(client.Client)
	datacenter, err := finder.DefaultDatacenter(ctx)
	must(err)
	finder.SetDatacenter(datacenter)
	pool, err := finder.ResourcePool(ctx, "DC0_C0/Resources")
	must(err)
	datastore, err := finder.DefaultDatastore(ctx)
	must(err)
	network, err := finder.Network(ctx, "VM Network")
	must(err)
	folders, err := datacenter.Folders(ctx)
	must(err)

	params := types.OvfCreateImportSpecParams{
		EntityName:       "appliance",
		DiskProvisioning: "thin",
		PropertyMapping:  []types.KeyValue{{Key: "address", Value: "10.10.0.10/24"}},
	}
	for _, each := range envelope.Network.Networks {
		params.NetworkMapping = append(params.NetworkMapping, types.OvfNetworkMapping{Name: each.Name, Network: network.Reference()})
	}
	spec, err := ovf.NewManager(client.Client).CreateImportSpec(ctx, string(descriptor), pool, datastore, params)
	must(err)
	for _, each := range spec.Error {
		log.Fatalf("import spec: %s", each.LocalizedMessage)
	}
	lease, err := pool.ImportVApp(ctx, spec.ImportSpec, folders.VmFolder, nil)
	must(err)
	info, err := lease.Wait(ctx, spec.FileItem)
	must(err)
	updater := lease.StartUpdater(ctx, info)
	uploaded := int64(0)
	for _, item := range info.Items {
		uploaded += upload(ctx, path, lease, item)
	}
	updater.Done()
	must(lease.Complete(ctx))
	print(ctx, object.NewVirtualMachine(client.Client, info.Entity), envelope, uploaded)
}

func upload(ctx context.Context, path string, lease *nfc.Lease, item nfc.FileItem) int64 {
	file, reader, header := open(path, func(name string) bool { return name == item.Path })
	defer file.Close()
	must(lease.Upload(ctx, item, reader, soap.Upload{ContentLength: header.Size}))
	return header.Size
}

func print(ctx context.Context, machine *object.VirtualMachine, envelope *ovf.Envelope, uploaded int64) {
	var found mo.VirtualMachine
	must(machine.Properties(ctx, machine.Reference(), []string{"name", "config.hardware"}, &found))
	answer := result{Name: found.Name, CPUs: found.Config.Hardware.NumCPU, MemoryMiB: found.Config.Hardware.MemoryMB, Uploaded: uploaded}
	for _, device := range found.Config.Hardware.Device {
		answer.Devices = append(answer.Devices, strings.TrimPrefix(fmt.Sprintf("%T", device), "*types."))
		if disk, ok := device.(*types.VirtualDisk); ok {
			answer.DiskKiB = disk.CapacityInKB
		}
	}
	for _, product := range envelope.VirtualSystem.Product {
		for _, property := range product.Property {
			answer.Properties = append(answer.Properties, property.Key)
		}
	}
	must(json.NewEncoder(os.Stdout).Encode(answer))
}
