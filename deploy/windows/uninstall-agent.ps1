<#
.SYNOPSIS
  Stops the agent and removes its task. Its services notice the end of their pipe, flush and leave by themselves.
#>
[CmdletBinding(SupportsShouldProcess)]
param([string] $TaskName = "QMT agent")
$ErrorActionPreference = "Stop"
if ($PSCmdlet.ShouldProcess($TaskName, "stop and unregister scheduled task")) {
    Stop-ScheduledTask -TaskName $TaskName
    Unregister-ScheduledTask -TaskName $TaskName -Confirm:$false
    Write-Output "Removed '$TaskName'."
}
