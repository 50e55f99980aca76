// Puts a lab machine into the simulator's inventory as vSphere would describe it.
package main

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// The simulator's list of guests ends before Debian 12; the identifier is vSphere 8's own.
const guestID = "debian12_64Guest"
const guestFullName = "Debian GNU/Linux 12 (64-bit)"

func init() {
	simulator.GuestID = append(simulator.GuestID, guestID)
}

func addMachine(ctx context.Context, client *vim25.Client, m *machine) (*labMachine, error) {
	finder := find.NewFinder(client)
	datacenter, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return nil, err
	}
	finder.SetDatacenter(datacenter)
	folders, err := datacenter.Folders(ctx)
	if err != nil {
		return nil, err
	}
	pool, err := finder.DefaultResourcePool(ctx)
	if err != nil {
		return nil, err
	}
	datastore, err := finder.DefaultDatastore(ctx)
	if err != nil {
		return nil, err
	}
	spec := m.spec(datastore.Name())
	task, err := folders.VmFolder.CreateVM(ctx, spec, pool, nil)
	if err != nil {
		return nil, err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return nil, err
	}
	inner := simulator.Map.Get(info.Result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)
	m.describe(inner)
	vm := &labMachine{VirtualMachine: *inner, machine: m}
	simulator.Map.Put(vm)
	simulator.Map.WithLock(vm, vm.observe)
	return vm, nil
}

func (m *machine) spec(datastore string) types.VirtualMachineConfigSpec {
	const controllerKey = 1000
	changes := []types.BaseVirtualDeviceConfigSpec{add(&types.ParaVirtualSCSIController{
		VirtualSCSIController: types.VirtualSCSIController{
			SharedBus:         types.VirtualSCSISharingNoSharing,
			VirtualController: types.VirtualController{BusNumber: 0, VirtualDevice: types.VirtualDevice{Key: controllerKey}},
		},
	}, "")}
	for index, d := range m.Disks {
		unit := int32(index)
		changes = append(changes, add(&types.VirtualDisk{
			CapacityInBytes: d.SizeBytes,
			CapacityInKB:    d.SizeBytes / 1024,
			VirtualDevice: types.VirtualDevice{
				Key:           2000 + unit,
				ControllerKey: controllerKey,
				UnitNumber:    &unit,
				DeviceInfo:    &types.Description{Label: d.Label},
				Backing: &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{
						FileName: fmt.Sprintf("[%s] %s/disk%d.vmdk", datastore, m.Name, index),
					},
					DiskMode:        string(types.VirtualDiskModePersistent),
					ThinProvisioned: types.NewBool(true),
					Uuid:            d.UUID,
				},
			},
		}, types.VirtualDeviceConfigSpecFileOperationCreate))
	}
	changes = append(changes, add(&types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: types.VirtualEthernetCard{
		AddressType: string(types.VirtualEthernetCardMacTypeManual),
		MacAddress:  m.Mac,
		VirtualDevice: types.VirtualDevice{
			Key:     4000,
			Backing: &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"}},
		},
	}}}, ""))
	return types.VirtualMachineConfigSpec{
		Name:              m.Name,
		Uuid:              m.SmbiosUUID,
		InstanceUuid:      m.InstanceUUID,
		GuestId:           guestID,
		Firmware:          string(types.GuestOsDescriptorFirmwareTypeBios),
		NumCPUs:           m.CPUCount,
		NumCoresPerSocket: 1,
		MemoryMB:          m.MemoryMiB,
		Files:             &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", datastore)},
		DeviceChange:      changes,
	}
}

func add(device types.BaseVirtualDevice, file types.VirtualDeviceConfigSpecFileOperation) *types.VirtualDeviceConfigSpec {
	return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: file, Device: device}
}

// describe sets what VMware's tools in the guest would tell.
func (m *machine) describe(vm *simulator.VirtualMachine) {
	vm.Config.GuestFullName = guestFullName
	vm.Summary.Config.GuestFullName = guestFullName
	nics := []types.GuestNicInfo{{
		Network: "VM Network", MacAddress: m.Mac, Connected: true, DeviceConfigId: 4000, IpAddress: []string{m.Address},
		IpConfig: &types.NetIpConfigInfo{IpAddress: []types.NetIpConfigInfoIpAddress{{IpAddress: m.Address, PrefixLength: 24, State: "preferred"}}},
	}}
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "guest.guestId", Val: guestID},
		{Name: "guest.guestFamily", Val: string(types.VirtualMachineGuestOsFamilyLinuxGuest)},
		{Name: "guest.guestFullName", Val: guestFullName},
		{Name: "guest.hostName", Val: m.HostName},
		{Name: "guest.ipAddress", Val: m.Address},
		{Name: "guest.net", Val: nics},
		{Name: "guest.toolsStatus", Val: types.VirtualMachineToolsStatusToolsOk},
		{Name: "guest.toolsVersion", Val: "12352"},
		{Name: "summary.guest.ipAddress", Val: m.Address},
		{Name: "summary.guest.hostName", Val: m.HostName},
		{Name: "summary.guest.guestFullName", Val: guestFullName},
		{Name: "summary.guest.toolsStatus", Val: types.VirtualMachineToolsStatusToolsOk},
	})
}
