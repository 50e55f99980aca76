// What runs as the only program of the sealed helper machine: it answers requests about the disks that it sees (docs/design/landing.md).

/** Frames and limits are those of helper-frames.ts. Perl, because Debian's perl-base is small and starts quickly on an emulated processor. */
export const helperProgram = String.raw`#!/usr/bin/perl
use strict;
use warnings;
use Fcntl qw(:DEFAULT :mode);
use Errno qw(ENOENT ENOTDIR ELOOP);

$ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';
$ENV{MDADM_NO_UDEV} = 1;
$ENV{DM_DISABLE_UDEV} = 1;
my ($MOUNT, $UMOUNT, $SYNC, $STATFS, $SETTIME) = (165, 166, 162, 137, 164);
my ($NETLINK, $DATAGRAM, $KERNEL_EVENTS) = (16, 2, 15);
my ($RDONLY, $NOSUID, $NODEV, $NOEXEC) = (1, 2, 4, 8);
my ($head_max, $body_max, $list_max) = (65536, 4 << 20, 1 << 20);
my %mounted;
my @order;
my $events;
my %bound;

sub quiet {
  my @command = @_;
  my $child = fork();
  die "fork: $!\n" unless defined $child;
  if ($child == 0) {
    open(STDIN, '<', '/dev/null');
    open(STDOUT, '>', '/run/said');
    open(STDERR, '>&', \*STDOUT);
    exec { $command[0] } @command or exit 127;
  }
  waitpid($child, 0);
  return $? >> 8 || $? & 127;
}

sub said {
  open(my $file, '<', '/run/said') or return '';
  my $text = '';
  read($file, $text, 2000);
  $text =~ s/[^\x20-\x7e\n]/?/g;
  return $text;
}

sub slurp {
  my ($path) = @_;
  open(my $file, '<', $path) or return '';
  my $text = <$file>;
  chomp $text if defined $text;
  return defined $text ? $text : '';
}

sub raw_mount {
  my ($source, $target, $type, $flags, $data) = @_;
  return syscall($MOUNT, "$source", "$target", "$type", $flags + 0, "$data") == 0;
}

sub start {
  mkdir $_ for qw(/proc /sys /dev /run /tmp /m /etc);
  raw_mount('proc', '/proc', 'proc', 0, '');
  raw_mount('sysfs', '/sys', 'sysfs', 0, '');
  raw_mount('devtmpfs', '/dev', 'devtmpfs', 0, '');
  raw_mount('tmpfs', '/run', 'tmpfs', 0, '');
  mkdir $_ for qw(/run/lvm /run/lock /run/lock/lvm /run/mdadm /run/cryptsetup);
  quiet('/usr/bin/modprobe', 'virtio_blk');
  socket($events, $NETLINK, $DATAGRAM, $KERNEL_EVENTS) or die "events: $!\n";
  bind($events, pack('SSLL', $NETLINK, 0, 0, 1)) or die "events: $!\n";
}

# A disk counts once its driver is bound: its partitions are known by then.
sub await_disks {
  my ($count) = @_;
  while (keys %bound < $count) {
    my $ready = '';
    vec($ready, fileno($events), 1) = 1;
    die "the disks did not appear\n" unless select($ready, undef, undef, 30);
    defined recv($events, my $event, 65536, 0) or die "events: $!\n";
    next unless $event =~ /\0DRIVER=virtio_blk\0/;
    $bound{$1} = 1 if $event =~ /^bind\@([^\0]+)\0/;
  }
}

sub open_channel {
  for (1 .. 2000) {
    for my $name (glob('/dev/vport*p*')) {
      my $port;
      return $port if sysopen($port, $name, O_RDWR);
    }
    select(undef, undef, undef, 0.01);
  }
  die "no channel\n";
}

sub read_exactly {
  my ($port, $count) = @_;
  my $bytes = '';
  while (length($bytes) < $count) {
    my $got = sysread($port, $bytes, $count - length($bytes), length($bytes));
    die "channel: $!\n" unless defined $got;
    select(undef, undef, undef, 0.01) if $got == 0;
  }
  return $bytes;
}

sub write_fully {
  my ($port, $bytes) = @_;
  my $at = 0;
  while ($at < length($bytes)) {
    my $wrote = syswrite($port, $bytes, length($bytes) - $at, $at);
    die "channel: $!\n" unless defined $wrote;
    $at += $wrote;
  }
}

# A path of the guest, its links followed inside the guest only; the last name is not followed.
sub inside {
  my ($id, $path) = @_;
  die "mount\n" unless exists $mounted{$id};
  my @todo = split m{/+}, $path;
  my @done;
  my $links = 0;
  while (@todo) {
    my $name = shift @todo;
    next if $name eq '' || $name eq '.';
    if ($name eq '..') { pop @done; next }
    my $full = join('/', "/m/$id", @done, $name);
    if (@todo && -l $full) {
      if (++$links > 40) { $! = ELOOP; return undef }
      my $to = readlink($full);
      @done = () if $to =~ m{^/};
      unshift @todo, split m{/+}, $to;
      next;
    }
    push @done, $name;
  }
  return join('/', "/m/$id", @done);
}

sub node_of {
  my ($path) = @_;
  my @s = lstat($path) or return undef;
  my $device = $s[6];
  my $major = ($device >> 8) & 0xfff;
  my $minor = ($device & 0xff) | (($device >> 12) & 0xfff00);
  return pack('Q>N4Q>q>N2Q>', $s[1], $s[2], $s[4], $s[5], $s[3], $s[7], $s[9], $major, $minor, $s[0]);
}

# Undefined: not there. Others die with their words.
sub checked {
  my ($what, $result) = @_;
  return 1 if $result;
  return 0 if $! == ENOENT || $! == ENOTDIR || $! == ELOOP;
  die "$what: $!\n";
}

sub blocks {
  my @lines;
  for my $sys (glob('/sys/class/block/*')) {
    my ($name) = $sys =~ m{([^/]+)$};
    next unless $name =~ /^(vd|dm-|md)/;
    my $size = slurp("$sys/size") * 512;
    next if $size == 0;
    my $number = slurp("$sys/partition");
    my $parent = $number eq '' ? $name : (readlink($sys) =~ m{([^/]+)/[^/]+$})[0];
    my $mapped = slurp("$sys/dm/name");
    my $uuid = slurp("$sys/dm/uuid");
    my $array = '';
    if ($name =~ /^md/) {
      for my $link (glob('/dev/md/*')) { $array = $1 if -l $link && readlink($link) =~ m{/?$name$} && $link =~ m{([^/]+)$} }
    }
    my $slaves = join(',', map { m{([^/]+)$} } glob("$sys/slaves/*"));
    push @lines, join("\t", $name, $size, slurp("/sys/class/block/$parent/serial"), $number, $mapped, $uuid, $array, $slaves);
  }
  return @lines;
}

sub peek {
  my ($name, $at, $count) = @_;
  my $bytes = '';
  sysopen(my $device, "/dev/$name", O_RDONLY) or return '';
  sysseek($device, $at, 0);
  sysread($device, $bytes, $count);
  return $bytes;
}

# Where md's formats put their mark: 1.2, 1.1, 1.0 and 0.90.
sub is_member {
  my ($name, $size) = @_;
  for my $at (4096, 0, int((int($size / 512) - 16) / 8) * 4096, int($size / 65536) * 65536 - 65536) {
    return 1 if $at >= 0 && peek($name, $at, 4) eq "\xfc\x4e\x2b\xa9";
  }
  return 0;
}

sub is_physical_volume {
  my ($name) = @_;
  my $head = peek($name, 0, 2048);
  for my $at (0, 512, 1024, 1536) { return 1 if length($head) >= $at + 32 && substr($head, $at, 8) eq 'LABELONE' && substr($head, $at + 24, 8) eq 'LVM2 001' }
  return 0;
}

my %tried;

sub unlock {
  my ($name, @keys) = @_;
  $tried{$name} = 'locked';
  for my $key (@keys) {
    open(my $pipe, '|-', '/usr/sbin/cryptsetup', '-q', 'open', '--type', 'luks', '--key-file', '-', "/dev/$name", "open-$name") or die "cryptsetup: $!\n";
    binmode $pipe;
    print $pipe $key;
    if (close $pipe) { $tried{$name} = 'open'; return }
  }
}

my $lvm_words = 'devices{use_devicesfile=0 obtain_device_list_from_udev=0 hints="none"} activation{udev_sync=0 udev_rules=0 monitoring=0} backup{backup=0 archive=0} global{use_lvmpolld=0 event_activation=0}';

# Whatever comes out of one layer may hold the next; what was seen once is not tried again.
sub assemble {
  my (@keys) = @_;
  my %seen;
  for (1 .. 6) {
    my ($members, $volumes, $others) = (0, 0, 0);
    for my $line (blocks()) {
      my ($name, $size) = split /\t/, $line;
      next if $seen{$name}++;
      $members++ if is_member($name, $size);
      if (peek($name, 0, 6) eq "LUKS\xba\xbe") { unlock($name, @keys); $others++ }
      $volumes++ if is_physical_volume($name);
    }
    last unless $members || $volumes || $others;
    if ($members) {
      quiet('/usr/sbin/mdadm', '--assemble', '--scan', '--run', '--quiet', '--config=partitions');
      for my $array (glob('/sys/class/block/md*/md')) {
        if (open(my $action, '>', "$array/sync_action")) { print $action "frozen\n"; close $action }
      }
    }
    quiet('/usr/sbin/lvm', 'vgchange', '-q', '-ay', '-K', '--sysinit', '--config', $lvm_words) if $volumes;
  }
}

# Pools, snapshots and mirrors have a state of their own to bring to the disks; plain volumes and encryption have none.
sub is_stacked {
  my ($sys) = @_;
  return slurp("$sys/dm/uuid") =~ /^LVM-/ && grep { slurp("$_/dm/uuid") =~ /^LVM-/ } glob("$sys/slaves/dm-*");
}

my %answer_to = (
  hello => sub {
    my ($body, $now) = @_;
    my $time = pack('q2', $now, 0);
    syscall($SETTIME, $time, 0) == 0 or die "time: $!\n";
    return ('ok', '', '1', slurp('/proc/sys/kernel/osrelease'));
  },
  warm => sub {
    my ($body, @modules) = @_;
    quiet('/usr/bin/modprobe', '-a', @modules);
    quiet('/usr/sbin/lvm', 'version');
    quiet("/usr/sbin/$_", '--version') for qw(mdadm cryptsetup);
    return ('ok', '');
  },
  disks => sub { my ($body, $count) = @_; await_disks($count); return ('ok', '') },
  assemble => sub {
    my ($body) = @_;
    assemble(unpack('(N/a*)*', $body));
    return ('ok', join("\n", map { "$_\t$tried{$_}" } sort keys %tried));
  },
  blocks => sub { return ('ok', join("\n", blocks())) },
  head => sub {
    my ($body, $name, $offset, $length) = @_;
    die "name\n" unless $name =~ /^[a-z0-9-]+$/ && $length <= $body_max;
    sysopen(my $device, "/dev/$name", O_RDONLY) or die "open $name: $!\n";
    sysseek($device, $offset, 0);
    my $bytes = '';
    while (length($bytes) < $length) {
      my $got = sysread($device, $bytes, $length - length($bytes), length($bytes));
      die "read $name: $!\n" unless defined $got;
      last if $got == 0;
    }
    return ('ok', $bytes);
  },
  mount => sub {
    my ($body, $id, $name, $type, $access, $words) = @_;
    die "name\n" unless $id =~ /^[0-9]{1,4}$/ && $name =~ m{^[A-Za-z0-9_.+-]+$} && $type =~ /^(ext4|xfs|btrfs|vfat)$/ && !exists $mounted{$id};
    mkdir "/m/$id";
    my $flags = $NOSUID | $NODEV | $NOEXEC | ($access eq 'read' ? $RDONLY : 0);
    if (!raw_mount("/dev/$name", "/m/$id", $type, $flags, $words)) { my $why = "$!"; rmdir "/m/$id"; die "mount: $why\n" }
    $mounted{$id} = 1;
    unshift @order, $id;
    return ('ok', '');
  },
  unmount => sub {
    my ($body, $id) = @_;
    die "mount\n" unless exists $mounted{$id};
    syscall($UMOUNT, "/m/$id", 0) == 0 or die "unmount: $!\n";
    delete $mounted{$id};
    @order = grep { $_ ne $id } @order;
    return ('ok', '');
  },
  free => sub {
    my ($body, $id) = @_;
    die "mount\n" unless exists $mounted{$id};
    my $buffer = "\0" x 128;
    syscall($STATFS, "/m/$id", $buffer) == 0 or die "statfs: $!\n";
    my ($type, $block, $count, $free, $available) = unpack('q5', $buffer);
    return ('ok', '', $available * $block);
  },
  list => sub {
    my ($body, $id, $path, $after) = @_;
    my $full = inside($id, $path);
    return ('absent', '') unless checked('list', defined $full) && checked('list', opendir(my $folder, $full));
    my $bytes = '';
    my $seen = 0;
    while (defined(my $name = readdir($folder))) {
      next if $name eq '.' || $name eq '..';
      next if $seen++ < $after;
      my $node = node_of("$full/$name");
      next unless defined $node;
      $bytes .= $node . pack('n/a*', $name);
      return ('ok', $bytes, $seen) if length($bytes) > $list_max;
    }
    return ('ok', $bytes);
  },
  stat => sub {
    my ($body, $id, $path) = @_;
    my $full = inside($id, $path);
    my $node = defined $full ? node_of($full) : undef;
    return ('absent', '') unless checked('stat', defined $node);
    return ('ok', $node);
  },
  readlink => sub {
    my ($body, $id, $path) = @_;
    my $full = inside($id, $path);
    my $to = defined $full ? readlink($full) : undef;
    return ('absent', '') unless checked('readlink', defined $to);
    return ('ok', $to);
  },
  read => sub {
    my ($body, $id, $path, $offset, $length) = @_;
    die "length\n" if $length > $body_max;
    my $full = inside($id, $path);
    return ('absent', '') unless defined $full && !-l $full && -f $full;
    sysopen(my $file, $full, O_RDONLY | O_NOFOLLOW) or die "open: $!\n";
    sysseek($file, $offset, 0);
    my $bytes = '';
    while (length($bytes) < $length) {
      my $got = sysread($file, $bytes, $length - length($bytes), length($bytes));
      die "read: $!\n" unless defined $got;
      last if $got == 0;
    }
    return ('ok', $bytes, -s $file);
  },
  write => sub {
    my ($body, $id, $path, $offset, $mode) = @_;
    my $full = inside($id, $path);
    die "path\n" unless defined $full;
    my $how = $offset == 0 ? O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW : O_WRONLY | O_NOFOLLOW;
    sysopen(my $file, $full, $how, 0600) or die "open: $!\n";
    sysseek($file, $offset, 0);
    my $at = 0;
    while ($at < length($body)) {
      my $wrote = syswrite($file, $body, length($body) - $at, $at);
      die "write: $!\n" unless defined $wrote;
      $at += $wrote;
    }
    chmod($mode, $full) or die "chmod: $!\n";
    close($file) or die "close: $!\n";
    return ('ok', '');
  },
  rename => sub {
    my ($body, $id, $from, $to) = @_;
    my ($one, $other) = (inside($id, $from), inside($id, $to));
    die "there is something at the new name\n" if lstat($other);
    rename($one, $other) or die "rename: $!\n";
    return ('ok', '');
  },
  remove => sub { my ($body, $id, $path) = @_; unlink(inside($id, $path)) or die "remove: $!\n"; return ('ok', '') },
  makefolder => sub { my ($body, $id, $path) = @_; mkdir(inside($id, $path), 0755) or die "mkdir: $!\n"; return ('ok', '') },
  removefolder => sub { my ($body, $id, $path) = @_; rmdir(inside($id, $path)) or die "rmdir: $!\n"; return ('ok', '') },
  link => sub { my ($body, $id, $path, $to) = @_; symlink($to, inside($id, $path)) or die "symlink: $!\n"; return ('ok', '') },
  finish => sub {
    for my $id (@order) { syscall($UMOUNT, "/m/$id", 0) == 0 or die "unmount: $!\n" }
    @order = ();
    %mounted = ();
    if (grep { is_stacked($_) } glob('/sys/class/block/dm-*')) {
      quiet('/usr/sbin/lvm', 'vgchange', '-q', '-an', '--config', $lvm_words);
      for (1 .. 4) { for my $sys (glob('/sys/class/block/dm-*')) { my $name = slurp("$sys/dm/name"); quiet('/usr/sbin/cryptsetup', 'close', $name) if $name =~ /^open-/ } }
      quiet('/usr/sbin/lvm', 'vgchange', '-q', '-an', '--config', $lvm_words);
    }
    my @arrays = glob('/sys/class/block/md*/md');
    quiet('/usr/sbin/mdadm', '--stop', '--scan') if @arrays;
    syscall($SYNC);
    return ('ok', '');
  },
);

sub serve {
  my $port = open_channel();
  while (1) {
    my ($head_bytes, $body_bytes) = unpack('NN', read_exactly($port, 8));
    die "frame\n" if $head_bytes > $head_max || $body_bytes > $body_max;
    my ($word, @arguments) = split(/\0/, read_exactly($port, $head_bytes), -1);
    my $body = read_exactly($port, $body_bytes);
    my $handler = $answer_to{$word};
    my ($state, $bytes, @more) = eval { defined $handler ? $handler->($body, @arguments) : die "unknown request\n" };
    if (!defined $state) { my $why = "$@"; chomp $why; ($state, $bytes, @more) = ('failed', '', $why, $word eq 'assemble' || $word eq 'finish' ? said() : '') }
    my $head = join("\0", $state, @more);
    write_fully($port, pack('NN', length($head), length($bytes)) . $head . $bytes);
  }
}

start();
serve();
`;
