"""The engine over HTTP, in the form of the OpenAI API, with T and P of every token."""
