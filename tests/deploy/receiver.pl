#!/usr/bin/perl
# receiver.pl PORT FILE
#
# Takes OTLP over HTTP on loopback, and notes the path and the size of every request in FILE, a line each. Perl, since that
# is in the smallest Debian.
use strict;
use warnings;
use IO::Socket::INET;

my ($port, $file) = @ARGV;
$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 16, ReuseAddr => 1)
    or die "receiver: $!\n";
while (my $client = $server->accept) {
    next if fork;
    serve($client);
    exit;
}

sub serve {
    my ($client) = @_;
    while (defined(my $line = <$client>)) {
        my ($path) = $line =~ m{^POST (\S+) HTTP/1\.1\r$} or return;
        my $length = 0;
        while (defined($line = <$client>) && $line !~ /^\r?$/) {
            $length = $1 if $line =~ /^content-length: *(\d+)/i;
        }
        my $body = '';
        while ($length > length $body) {
            read($client, $body, $length - length $body, length $body) or return;
        }
        open(my $log, '>>', $file) or return;
        print $log "$path $length\n";
        close($log);
        print $client "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        $client->flush;
    }
}
