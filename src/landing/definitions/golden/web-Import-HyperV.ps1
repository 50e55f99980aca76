# Makes the machine web in Hyper-V: .\Import-HyperV.ps1 -SwitchName NAME
param([Parameter(Mandatory)][string]$SwitchName, [string]$Folder = $PSScriptRoot)
$ErrorActionPreference = 'Stop'
$vm = New-VM -Name 'web' -Generation 1 -MemoryStartupBytes 2147483648 -NoVHD
Set-VM -VM $vm -StaticMemory -ProcessorCount 2 -AutomaticCheckpointsEnabled $false
Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter
$disk = Join-Path $Folder 'disk0.vhd'
Add-VMHardDiskDrive -VM $vm -ControllerType IDE -ControllerNumber 0 -ControllerLocation 0 -Path $disk
Add-VMNetworkAdapter -VM $vm -Name 'ens192' -SwitchName $SwitchName -StaticMacAddress '0050560A0B0C'
Set-VMComPort -VM $vm -Number 1 -Path '\\.\pipe\web'
Write-Output "Start-VM 'web' starts it"
