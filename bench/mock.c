/*
 * mock: an OpenAI-shaped upstream that is never the bottleneck.
 *
 * One thread, one epoll. A POST gets one canned chat completion of about 930
 * bytes or, when its body says "stream": true, a stream of events, each about
 * 300 bytes unless --event-bytes says more, then a usage event and [DONE]; its
 * "max_tokens" are the most events of a stream.
 * A GET gets a list of one model. A reader that does not read stops its stream:
 * nothing is buffered here beyond the socket.
 *
 *   mock --port P [--delay-us D] [--events N] [--interval-us I] [--event-bytes B]
 *
 * Prints "listening" once it does. Not HTTP for strangers: it trusts its client
 * to send well-formed requests with a Content-Length.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 65536, MAX_REQUEST = 8 << 20, TIMERS = 1 << 17, BATCH = 512 };

/* What a connection is doing. PAUSED waits for a timer, SENDING for the socket. */
enum state { READING, PAUSED, SENDING };

struct connection {
    int fd;
    uint32_t generation; /* tells a timer that its descriptor was reused */
    enum state state;
    bool is_stream;
    long events_sent, most_events;
    bool is_last;         /* the piece that is being sent ends the answer */
    const char *piece;    /* what is being sent, and how far */
    size_t piece_size, piece_sent;
    char *request;
    size_t request_size, request_capacity;
};

/* Waits of one fixed length end in the order they began, so a ring is enough. */
struct timer { int64_t due_us; int fd; uint32_t generation; };
struct ring { struct timer timers[TIMERS]; uint32_t head, tail; };

static struct connection *connections[MAX_FDS];
static struct ring delays, intervals;
static long delay_us, interval_us, event_count = 100, event_bytes = 300;
static int epoll_fd;
static uint32_t next_generation;

static struct text { char *bytes; size_t size; } whole, stream_head, event, stream_end, models;

static int64_t now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- the canned answers ---- */

#define ID "\"id\":\"chatcmpl-bench0000000000000000000000\""
#define EVENT_HEAD "{" ID ",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"mock\"," \
                   "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":"

static struct text format(const char *pattern, const char *a, const char *b)
{
    struct text text;
    int size = asprintf(&text.bytes, pattern, a, b);
    if (size < 0)
        die("asprintf");
    text.size = (size_t)size;
    return text;
}

static struct text json_answer(const char *body)
{
    char size[32];
    snprintf(size, sizeof size, "%zu", strlen(body));
    return format("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %s\r\n\r\n%s", size, body);
}

static struct text http_chunk(const char *payload, const char *after)
{
    char size[32];
    snprintf(size, sizeof size, "%zx\r\n", strlen(payload));
    struct text inner = format("%s%s\r\n", size, payload);
    struct text chunk = format("%s%s", inner.bytes, after);
    free(inner.bytes);
    return chunk;
}

static void prepare_answers(void)
{
    whole = json_answer(
        "{" ID ",\"object\":\"chat.completion\",\"created\":1741569952,\"model\":\"mock\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"A lighthouse does one thing: it stands where ships must "
        "not go and says so, in every weather, without being asked. Its keepers trim the lamp, wind the clockwork, "
        "and write in a book what the night brought. Most pages are alike. The book is kept all the same, because "
        "the one page that is different is never announced beforehand, and because a light nobody keeps account of "
        "is soon a light that nobody trusts.\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":83,\"total_tokens\":140,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":"
        "{\"reasoning_tokens\":0,\"audio_tokens\":0}},\"service_tier\":\"default\"}");
    models = json_answer("{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1}]}");
    stream_head = format("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                         "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n%s%s", "", "");

    const char *before = "data: " EVENT_HEAD "[{\"index\":0,\"delta\":{\"content\":\" ";
    const char *after = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    long room = event_bytes - (long)(strlen(before) + strlen(after));
    size_t token = room > 5 ? (size_t)room : 5;
    char *word = malloc(token + 1);
    memset(word, 'x', token);
    word[token] = 0;
    struct text start = format("%s%s", before, word);
    struct text payload = format("%s%s", start.bytes, after);
    event = http_chunk(payload.bytes, "");
    free(word);
    free(start.bytes);
    free(payload.bytes);

    char last[1024];
    snprintf(last, sizeof last,
             "data: " EVENT_HEAD "[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
             "data: " EVENT_HEAD "[],\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\n"
             "data: [DONE]\n\n", event_count, 57 + event_count);
    stream_end = http_chunk(last, "0\r\n\r\n");
}

/* ---- one connection ---- */

static void proceed(struct connection *c);

static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event change = {.events = events, .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &change);
}

static void hang_up(struct connection *c)
{
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->request);
    free(c);
}

static void wait_in(struct ring *ring, struct connection *c, long wait_us)
{
    if (ring->tail - ring->head == TIMERS) {
        fputs("mock: too many timers\n", stderr);
        exit(1);
    }
    c->state = PAUSED;
    ring->timers[ring->tail++ % TIMERS] = (struct timer){now_us() + wait_us, c->fd, c->generation};
}

static void send_piece(struct connection *c, struct text text, bool is_last)
{
    c->state = SENDING;
    c->piece = text.bytes;
    c->piece_size = text.size;
    c->piece_sent = 0;
    c->is_last = is_last;
}

/* True when the piece is out; false when the socket is full or gone. */
static bool flush(struct connection *c)
{
    while (c->piece_sent < c->piece_size) {
        ssize_t sent = send(c->fd, c->piece + c->piece_sent, c->piece_size - c->piece_sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT);
            return false;
        }
        if (sent <= 0) {
            hang_up(c);
            return false;
        }
        c->piece_sent += (size_t)sent;
    }
    return true;
}

/* Take one request off the buffer and begin its answer; false when it is not complete. */
static bool take_request(struct connection *c)
{
    c->request[c->request_size] = 0;
    char *head_end = memmem(c->request, c->request_size, "\r\n\r\n", 4);
    if (!head_end)
        return false;
    *head_end = 0; /* so that the search ends with the head */
    char *length = strcasestr(c->request, "\r\ncontent-length:");
    size_t body_size = length ? strtoul(length + 17, NULL, 10) : 0;
    *head_end = '\r';
    char *body = head_end + 4;
    size_t size = (size_t)(body - c->request) + body_size;
    if (c->request_size < size)
        return false;
    bool is_get = c->request[0] == 'G';
    c->is_stream = memmem(body, body_size, "\"stream\":true", 13) || memmem(body, body_size, "\"stream\": true", 14);
    c->events_sent = -1; /* the head comes before the first event */
    char *most = memmem(body, body_size, "\"max_tokens\":", 13);
    c->most_events = most ? strtol(most + 13, NULL, 10) : event_count;
    memmove(c->request, c->request + size, c->request_size - size);
    c->request_size -= size;
    if (is_get)
        send_piece(c, models, true);
    else if (delay_us)
        wait_in(&delays, c, delay_us);
    else
        c->state = SENDING, c->piece_size = c->piece_sent = 0, c->is_last = false;
    return true;
}

static void next_piece(struct connection *c)
{
    if (!c->is_stream)
        send_piece(c, whole, true);
    else if (c->events_sent < 0)
        send_piece(c, stream_head, false);
    else if (c->events_sent < event_count && c->events_sent < c->most_events)
        send_piece(c, event, false);
    else
        send_piece(c, stream_end, true);
    c->events_sent++;
}

/* Go on until something has to be waited for. */
static void proceed(struct connection *c)
{
    for (;;) {
        if (c->state == PAUSED || (c->state == READING && !take_request(c)))
            return;
        if (c->state != SENDING)
            continue;
        if (!flush(c))
            return;
        bool was_event = c->piece == event.bytes;
        if (c->is_last)
            c->state = READING, c->is_last = false, c->piece = NULL;
        else if (was_event && interval_us)
            c->piece = NULL, c->piece_size = c->piece_sent = 0, wait_in(&intervals, c, interval_us);
        else
            next_piece(c);
    }
}

static void resume(struct connection *c)
{
    c->state = SENDING;
    c->piece_size = c->piece_sent = 0;
    c->is_last = false;
    proceed(c);
}

static void on_readable(struct connection *c)
{
    if (c->request_capacity - c->request_size < 16384) {
        c->request_capacity = c->request_capacity ? c->request_capacity * 2 : 32768;
        c->request = realloc(c->request, c->request_capacity + 1);
        if (!c->request || c->request_capacity > MAX_REQUEST)
            die("a request is too large");
    }
    ssize_t size = recv(c->fd, c->request + c->request_size, c->request_capacity - c->request_size, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        hang_up(c);
        return;
    }
    c->request_size += (size_t)size;
    if (c->state == READING)
        proceed(c);
}

/* ---- the loop ---- */

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 8192))
        die("mock: listen");
    return fd;
}

static void accept_all(int listening)
{
    int fd, one = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->generation = ++next_generation;
        connections[fd] = c;
        struct epoll_event watch_it = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &watch_it);
    }
}

static void fire(struct ring *ring, int64_t now)
{
    uint32_t end = ring->tail; /* what is added while firing waits for the next turn */
    while (ring->head != end && ring->timers[ring->head % TIMERS].due_us <= now) {
        struct timer timer = ring->timers[ring->head++ % TIMERS];
        struct connection *c = connections[timer.fd];
        if (c && c->generation == timer.generation && c->state == PAUSED)
            resume(c);
    }
}

/* Microseconds until the first timer, or -1 when there is none. */
static int64_t next_due(int64_t now)
{
    int64_t first = INT64_MAX;
    if (delays.head != delays.tail)
        first = delays.timers[delays.head % TIMERS].due_us;
    if (intervals.head != intervals.tail && intervals.timers[intervals.head % TIMERS].due_us < first)
        first = intervals.timers[intervals.head % TIMERS].due_us;
    return first == INT64_MAX ? -1 : first > now ? first - now : 0;
}

static void serve(int listening)
{
    struct epoll_event events[BATCH], accepts = {.events = EPOLLIN, .data.fd = listening};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listening, &accepts);
    for (;;) {
        int64_t wait = next_due(now_us());
        struct timespec until = {wait / 1000000, (wait % 1000000) * 1000};
        int count = epoll_pwait2(epoll_fd, events, BATCH, wait < 0 ? NULL : &until, NULL);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) {
                accept_all(listening);
                continue;
            }
            struct connection *c = connections[fd];
            if (c && (events[i].events & EPOLLOUT) && c->state == SENDING) {
                watch(c, EPOLLIN);
                proceed(c);
            }
            if ((c = connections[fd]) && (events[i].events & ~(uint32_t)EPOLLOUT))
                on_readable(c);
        }
        int64_t now = now_us();
        fire(&delays, now);
        fire(&intervals, now);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, 0, 'p'},        {"delay-us", required_argument, 0, 'd'},
        {"events", required_argument, 0, 'n'},      {"interval-us", required_argument, 0, 'i'},
        {"event-bytes", required_argument, 0, 'b'}, {0}};
    int port = 0, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'd': delay_us = atol(optarg); break;
        case 'n': event_count = atol(optarg); break;
        case 'i': interval_us = atol(optarg); break;
        case 'b': event_bytes = atol(optarg); break;
        default: return 2;
        }
    }
    if (port <= 0) {
        fputs("usage: mock --port P [--delay-us D] [--events N] [--interval-us I] [--event-bytes B]\n", stderr);
        return 2;
    }
    prepare_answers();
    int listening = listen_on(port);
    puts("listening");
    fflush(stdout);
    serve(listening);
}
