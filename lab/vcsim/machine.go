// A lab machine as a process: started by its own argument list, stopped over QMP, alive when its pid file names it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type disk struct {
	Label     string `json:"label"`
	SizeBytes int64  `json:"sizeBytes"`
	UUID      string `json:"uuid"`
}

// machine is one entry of the machine list that lab/machine.ts writes.
type machine struct {
	Name         string   `json:"name"`
	HostName     string   `json:"hostName"`
	SmbiosUUID   string   `json:"smbiosUuid"`
	InstanceUUID string   `json:"instanceUuid"`
	Mac          string   `json:"mac"`
	Address      string   `json:"address"`
	CPUCount     int32    `json:"cpuCount"`
	MemoryMiB    int64    `json:"memoryMiB"`
	Disks        []disk   `json:"disks"`
	Argv         []string `json:"argv"`
	QmpSocket    string   `json:"qmpSocket"`
	PidFile      string   `json:"pidFile"`
}

const stopMax = 20 * time.Second

// process answers the machine's process id, or 0 when it is off.
func (m *machine) process() int {
	text, err := os.ReadFile(m.PidFile)
	if err != nil {
		return 0
	}
	id, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id))
	if err != nil || !strings.Contains(string(command), m.PidFile) {
		return 0
	}
	return id
}

// start returns when the machine's virtual CPUs run.
func (m *machine) start() error {
	if m.process() != 0 {
		return nil
	}
	output, err := exec.Command(m.Argv[0], m.Argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %s", err, strings.TrimSpace(string(output)))
	}
	return nil
}

// stop pulls the plug and returns when the process has gone.
func (m *machine) stop() error {
	id := m.process()
	if id == 0 {
		return nil
	}
	if err := m.order("quit"); err != nil {
		_ = syscall.Kill(id, syscall.SIGTERM) // QEMU ends in order on this signal too.
	}
	for deadline := time.Now().Add(stopMax); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if m.process() == 0 {
			return nil
		}
	}
	_ = syscall.Kill(id, syscall.SIGKILL)
	time.Sleep(time.Second)
	if m.process() != 0 {
		return fmt.Errorf("process %d does not end", id)
	}
	return nil
}

// order sends one QMP command.
func (m *machine) order(command string) error {
	connection, err := net.DialTimeout("unix", m.QmpSocket, 2*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(5 * time.Second))
	reader := bufio.NewReader(connection)
	if _, err := reader.ReadString('\n'); err != nil {
		return err
	}
	for _, name := range []string{"qmp_capabilities", command} {
		line, _ := json.Marshal(map[string]string{"execute": name})
		if _, err := connection.Write(append(line, '\n')); err != nil {
			return err
		}
		if err := awaitReturn(reader); err != nil {
			return err
		}
	}
	return nil
}

func awaitReturn(reader *bufio.Reader) error {
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return err
		}
		var answer struct {
			Return json.RawMessage        `json:"return"`
			Error  *struct{ Desc string } `json:"error"`
		}
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			return err
		}
		if answer.Error != nil {
			return fmt.Errorf("%s", answer.Error.Desc)
		}
		if answer.Return != nil {
			return nil
		}
	}
}
