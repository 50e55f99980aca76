// Power tasks that end only when the real machine has started or stopped.
package main

import (
	"log"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// labMachine stands in the inventory in place of the simulator's own machine; the embedded one keeps the properties.
// It is embedded by value: the simulator looks for the properties in the first field of a struct.
type labMachine struct {
	simulator.VirtualMachine
	machine *machine
}

const (
	powerOn  = types.VirtualMachinePowerStatePoweredOn
	powerOff = types.VirtualMachinePowerStatePoweredOff
)

func (vm *labMachine) PowerOnVMTask(_ *simulator.Context, _ *types.PowerOnVM_Task) soap.HasFault {
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: vm.move("powerOn", powerOn, vm.machine.start)}}
}

func (vm *labMachine) PowerOffVMTask(_ *simulator.Context, _ *types.PowerOffVM_Task) soap.HasFault {
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: vm.move("powerOff", powerOff, vm.machine.stop)}}
}

func (vm *labMachine) ResetVMTask(_ *simulator.Context, _ *types.ResetVM_Task) soap.HasFault {
	task := simulator.CreateTask(vm, "reset", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if err := vm.machine.order("system_reset"); err != nil {
			return nil, systemError(err)
		}
		return nil, nil
	})
	return &methods.ResetVM_TaskBody{Res: &types.ResetVM_TaskResponse{Returnval: task.Run()}}
}

// ShutdownGuest presses the power button; the state follows when the guest has stopped by itself.
func (vm *labMachine) ShutdownGuest(_ *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	body := &methods.ShutdownGuestBody{}
	if vm.Runtime.PowerState != powerOn {
		body.Fault_ = simulator.Fault("", &types.InvalidPowerState{RequestedState: powerOn, ExistingState: vm.Runtime.PowerState})
	} else if err := vm.machine.order("system_powerdown"); err != nil {
		body.Fault_ = simulator.Fault(err.Error(), systemError(err))
	} else {
		body.Res = new(types.ShutdownGuestResponse)
	}
	return body
}

func (vm *labMachine) RebootGuest(_ *simulator.Context, _ *types.RebootGuest) soap.HasFault {
	body := &methods.RebootGuestBody{}
	body.Fault_ = simulator.Fault("the lab's machines are rebooted from inside", &types.NotSupported{})
	return body
}

func (vm *labMachine) move(name string, wanted types.VirtualMachinePowerState, act func() error) types.ManagedObjectReference {
	task := simulator.CreateTask(vm, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		vm.observe()
		if vm.Runtime.PowerState == wanted {
			return nil, &types.InvalidPowerState{RequestedState: wanted, ExistingState: vm.Runtime.PowerState}
		}
		if err := act(); err != nil {
			log.Printf("%s %s: %v", name, vm.machine.Name, err)
			return nil, systemError(err)
		}
		vm.observe()
		return nil, nil
	})
	return task.Run()
}

// observe makes the inventory say what the process says. The caller holds the machine's lock.
func (vm *labMachine) observe() {
	state := powerOff
	if vm.machine.process() != 0 {
		state = powerOn
	}
	if vm.Runtime.PowerState == state {
		return
	}
	changes := []types.PropertyChange{{Name: "runtime.powerState", Val: state}, {Name: "summary.runtime.powerState", Val: state}}
	tools := types.VirtualMachineToolsRunningStatusGuestToolsNotRunning
	guest := types.VirtualMachineGuestStateNotRunning
	if state == powerOn {
		now := time.Now()
		changes = append(changes, types.PropertyChange{Name: "runtime.bootTime", Val: &now})
		tools = types.VirtualMachineToolsRunningStatusGuestToolsRunning
		guest = types.VirtualMachineGuestStateRunning
	}
	changes = append(changes,
		types.PropertyChange{Name: "guest.toolsRunningStatus", Val: string(tools)},
		types.PropertyChange{Name: "guest.guestState", Val: string(guest)},
	)
	simulator.Map.Update(&vm.VirtualMachine, changes)
}

// follow keeps the inventory right when a machine stops or starts without a task.
func (vm *labMachine) follow(period time.Duration) {
	for range time.Tick(period) {
		simulator.Map.WithLock(vm, vm.observe)
	}
}

func systemError(err error) *types.SystemError {
	return &types.SystemError{Reason: err.Error()}
}
