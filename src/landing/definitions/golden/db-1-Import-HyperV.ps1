# Makes the machine db-1 in Hyper-V: .\Import-HyperV.ps1 -SwitchName NAME
param([Parameter(Mandatory)][string]$SwitchName, [string]$Folder = $PSScriptRoot)
$ErrorActionPreference = 'Stop'
$vm = New-VM -Name 'db-1' -Generation 2 -MemoryStartupBytes 51539607552 -NoVHD
Set-VM -VM $vm -StaticMemory -ProcessorCount 8 -AutomaticCheckpointsEnabled $false
Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter
$disk = Join-Path $Folder 'disk1.vhdx'
Convert-VHD -Path (Join-Path $Folder 'disk1.vhd') -DestinationPath $disk -VHDType Dynamic
Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 0 -Path $disk
$disk = Join-Path $Folder 'disk0.vhdx'
Convert-VHD -Path (Join-Path $Folder 'disk0.vhd') -DestinationPath $disk -VHDType Dynamic
Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 1 -Path $disk
Add-VMNetworkAdapter -VM $vm -Name 'ens192' -SwitchName $SwitchName -StaticMacAddress '0050560A0B0C'
Add-VMNetworkAdapter -VM $vm -Name 'ens224' -SwitchName $SwitchName -StaticMacAddress '0050560A0B0D'
Set-VMFirmware -VM $vm -EnableSecureBoot Off -FirstBootDevice (Get-VMHardDiskDrive -VM $vm)[0]
Set-VMComPort -VM $vm -Number 1 -Path '\\.\pipe\db-1'
Write-Output "Start-VM 'db-1' starts it"
