"""Between messages and token ids, and between tokens and a screen: chat templates, the reply stream, traces and plots."""
