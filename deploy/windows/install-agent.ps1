<#
.SYNOPSIS
  Registers the agent of the QMT machine as a scheduled task of the user who is logged in to MiniQMT.
.DESCRIPTION
  A task, not a Windows service: MiniQMT is a desktop program, and a service in session 0 starts before it and cannot
  see its desktop. The task starts at log-on, is started again every minute if it is not running, has no time limit,
  and needs no inbound port. Run once, in a PowerShell of that user (no administrator needed for the task itself).
.PARAMETER Python
  python.exe of the environment in which qmt_orchestration is installed.
.PARAMETER EnvFile
  File of QMT_... settings (see qmt.env.example). Its access list is cut to the user and SYSTEM: it holds a password.
.PARAMETER Services
  Services of this host.
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Mandatory)] [string] $Python,
    [string] $EnvFile = "$env:ProgramData\qmt\qmt.env",
    [string] $Services = "subscriber,gateway",
    [string] $TaskName = "QMT agent"
)
$ErrorActionPreference = "Stop"
Set-StrictMode -Version Latest

if (-not (Test-Path -LiteralPath $Python)) { throw "no python at '$Python': give -Python the python.exe of the environment" }
if (-not (Test-Path -LiteralPath $EnvFile)) { throw "no settings at '$EnvFile': copy qmt.env.example there and fill it in" }
& $Python -c "import qmt_orchestration, xtquant"
if ($LASTEXITCODE -ne 0) { throw "qmt_orchestration or xtquant cannot be imported by '$Python': run its 'python -m pip install .' in the project's folder" }

$user = [System.Security.Principal.WindowsIdentity]::GetCurrent().Name
& icacls.exe $EnvFile /inheritance:r /grant:r "${user}:(R,W)" "*S-1-5-18:(R)" | Out-Null # SYSTEM, by its number: names differ by language
if ($LASTEXITCODE -ne 0) { throw "the access list of '$EnvFile' could not be set" }

# The file is found through a variable of this user, which holds no secret itself.
[Environment]::SetEnvironmentVariable("QMT_ENV_FILE", $EnvFile, "User")

# pythonw has no console window that somebody could close; logs go to QMT_DATA_DIR\logs. No cmd.exe around it: that
# would not wait for a windowless program, and the task could not tell whether the agent lives.
$windowless = Join-Path (Split-Path -Parent $Python) "pythonw.exe"
if (-not (Test-Path -LiteralPath $windowless)) { throw "no pythonw.exe beside '$Python'" }
$action = New-ScheduledTaskAction -Execute $windowless -Argument "-m qmt_orchestration.cli agent --services $Services" `
    -WorkingDirectory (Split-Path -Parent $EnvFile) # else a relative QMT_DATA_DIR would lie in System32
$atLogOn = New-ScheduledTaskTrigger -AtLogOn -User $user
# Also every minute: a second start is refused by the agent's lock, so this only revives a dead one.
$everyMinute = New-ScheduledTaskTrigger -Once -At (Get-Date) -RepetitionInterval (New-TimeSpan -Minutes 1)
$options = New-ScheduledTaskSettingsSet -MultipleInstances IgnoreNew -ExecutionTimeLimit ([TimeSpan]::Zero) `
    -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -StartWhenAvailable -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1)
$who = New-ScheduledTaskPrincipal -UserId $user -LogonType Interactive -RunLevel Limited
if ($PSCmdlet.ShouldProcess($TaskName, "register scheduled task")) {
    Register-ScheduledTask -TaskName $TaskName -Action $action -Trigger $atLogOn, $everyMinute -Settings $options -Principal $who -Force | Out-Null
    Start-ScheduledTask -TaskName $TaskName
    Write-Output "Registered and started '$TaskName' for $user. See: qmt status; logs: QMT_DATA_DIR\logs"
}
