// A PowerShell script that makes the machine in Hyper-V: generation by the firmware, its own card addresses, its console on a pipe.

import { bootFirst, type DefinedMachine } from "./defined-machine.ts";

export function renderHyperV(machine: DefinedMachine): string {
  const { name, cpuCount, memoryBytes, firmware, nics } = machine;
  const generation = firmware === "efi" ? 2 : 1;
  // Machines of generation 2 take VHDX only.
  const convert = (fileName: string): readonly string[] =>
    generation === 2
      ? [
          `$disk = Join-Path $Folder '${fileName}x'`,
          `Convert-VHD -Path (Join-Path $Folder '${fileName}') -DestinationPath $disk -VHDType Dynamic`,
        ]
      : [`$disk = Join-Path $Folder '${fileName}'`];
  const place = (index: number): string => {
    if (generation === 2) return `-ControllerType SCSI -ControllerNumber 0 -ControllerLocation ${index}`;
    return index === 0
      ? "-ControllerType IDE -ControllerNumber 0 -ControllerLocation 0"
      : `-ControllerType SCSI -ControllerNumber 0 -ControllerLocation ${index - 1}`;
  };
  return [
    `# Makes the machine ${name} in Hyper-V: .\\Import-HyperV.ps1 -SwitchName NAME`,
    "param([Parameter(Mandatory)][string]$SwitchName, [string]$Folder = $PSScriptRoot)",
    "$ErrorActionPreference = 'Stop'",
    `$vm = New-VM -Name '${name}' -Generation ${generation} -MemoryStartupBytes ${memoryBytes} -NoVHD`,
    `Set-VM -VM $vm -StaticMemory -ProcessorCount ${cpuCount} -AutomaticCheckpointsEnabled $false`,
    "Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter",
    ...bootFirst(machine.disks).flatMap(({ fileName }, index) => [
      ...convert(fileName),
      `Add-VMHardDiskDrive -VM $vm ${place(index)} -Path $disk`,
    ]),
    ...nics.map(
      ({ mac, guestName }) =>
        `Add-VMNetworkAdapter -VM $vm -Name '${guestName}' -SwitchName $SwitchName -StaticMacAddress '${mac.replaceAll(":", "").toUpperCase()}'`,
    ),
    ...(generation === 2 ? ["Set-VMFirmware -VM $vm -EnableSecureBoot Off -FirstBootDevice (Get-VMHardDiskDrive -VM $vm)[0]"] : []),
    `Set-VMComPort -VM $vm -Number 1 -Path '\\\\.\\pipe\\${name}'`,
    `Write-Output "Start-VM '${name}' starts it"`,
    "",
  ].join("\r\n");
}
